// QMP: lines of JSON over a socket (QEMU's docs/interop/qmp-spec).

/** Splits what comes in pieces into whole lines. */
export class Lines {
  #rest = '';

  /** The lines that this piece completes. */
  push(piece) {
    const lines = (this.#rest + piece).split('\n');
    this.#rest = lines.pop();
    return lines.map((line) => line.trim()).filter((line) => line !== '');
  }
}

/** What a message is: `{ kind: 'greeting' | 'answer' | 'error' | 'event', … }`. */
export function classify(line) {
  const message = JSON.parse(line);
  if ('QMP' in message) return { kind: 'greeting' };
  if ('event' in message) return { kind: 'event', name: message.event, data: message.data ?? {} };
  if ('error' in message) {
    return { kind: 'error', id: message.id, text: `${message.error.class}: ${message.error.desc}` };
  }
  return { kind: 'answer', id: message.id, value: message.return };
}
