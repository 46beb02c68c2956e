interface FileResult {
  name: string;
  status: string;
  assertionResults: { status: string; fullName: string }[];
}
export function failedTests(testResults: FileResult[], nameOf: (name: string) => string): string[];
export function reportRounds(rounds: string[][]): string;
