// Which tests failed in which of several rounds.

/** The failed tests of a report of vitest's, by file and name; a file that could not be run by its name alone. */
export function failedTests(testResults, nameOf) {
  return testResults
    .filter(({ status }) => status === 'failed')
    .flatMap(({ name, assertionResults }) => {
      const failed = assertionResults.filter(({ status }) => status === 'failed');
      if (failed.length === 0) return [nameOf(name)];
      return failed.map(({ fullName }) => `${nameOf(name)}: ${fullName}`);
    });
}

/** A line for each test that failed in any round, most often failed first, and one for the whole. */
export function reportRounds(rounds) {
  const failedIn = new Map();
  rounds.forEach((failed, index) => {
    for (const test of failed) failedIn.set(test, [...(failedIn.get(test) ?? []), index + 1]);
  });
  const lines = [...failedIn]
    .sort(([, a], [, b]) => b.length - a.length)
    .map(([test, at]) => `FAILED in round ${at.join(', ')}: ${test}\n`);
  const passed = rounds.filter((failed) => failed.length === 0).length;
  return `${lines.join('')}${passed} of ${rounds.length} rounds without a failed test\n`;
}
