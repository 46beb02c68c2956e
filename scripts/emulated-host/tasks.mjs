// Reads the kernel's answer to sysrq-t, to say in a few lines what every process was waiting for.

const TIMESTAMP = /^\[[\s\d.]+\] /;
const HEADER = /^task:(\S+)\s+state:(\S)\s.*?\bpid:(\d+)\s+ppid:(\d+)/;
const FRAME = /^ ([A-Za-z_][\w.]*)\+0x[0-9a-f]+\/0x[0-9a-f]+/;
const KTHREADD = '2';
// How every task stops, and how every system call begins: they tell nothing.
const COMMON =
  /^(__schedule|schedule(_.*)?|(__)?do_syscall_64|entry_SYSCALL_.*|(__)?x64_sys_call)$/;
// Where an interrupt came in. What is above it, the answering of our question, is not what the task was doing.
const INTERRUPTED = /^asm_(common_interrupt|sysvec_\w+)$/;
const SHOWN_FRAMES = 5;

/**
 * One entry per process outside the kernel: name, pid, state as in ps(1), and the kernel functions it
 * is in, innermost first. Frames that the unwinder doubts ("? ") are left out.
 */
export function userTasks(log) {
  const tasks = [];
  let current;
  for (const raw of log.split('\n')) {
    const line = raw.replace(TIMESTAMP, '');
    const header = HEADER.exec(line);
    if (header) {
      const [, name, state, pid, ppid] = header;
      current = { name, state, pid: Number(pid), frames: [] };
      if (pid !== KTHREADD && ppid !== KTHREADD) tasks.push(current);
      continue;
    }
    if (line.startsWith(' </TASK>')) current = undefined;
    const frame = FRAME.exec(line)?.[1];
    if (!current || !frame) continue;
    if (INTERRUPTED.test(frame)) current.frames = [];
    else if (!COMMON.test(frame)) current.frames.push(frame);
  }
  return tasks;
}

export function describeTasks(log) {
  return userTasks(log).map(({ name, pid, state, frames }) => {
    const where = frames.slice(0, SHOWN_FRAMES).join(' < ') || 'running';
    return `${String(pid).padStart(6)} ${state} ${name.padEnd(15)} ${where}`;
  });
}
