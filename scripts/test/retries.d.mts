export interface Retried {
  name: string;
  retries: number;
}
export function listRetries(retried: Retried[]): string;
