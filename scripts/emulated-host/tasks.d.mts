export interface UserTask {
  name: string;
  /** As ps(1) shows it. */
  state: string;
  pid: number;
  /** Kernel functions, innermost first. */
  frames: string[];
}
export function userTasks(log: string): UserTask[];
export function describeTasks(log: string): string[];
