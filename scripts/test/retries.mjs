// Which tests had to be tried more than once: a test that passes in the end may still have found something.

/** How often a test was tried again. */
export const retriesOf = (test) => test.diagnostic()?.retryCount ?? 0;

/** One line for each test that was tried again, for the end of a long log. */
export const listRetries = (retried) =>
  retried.map(({ name, retries }) => `RETRIED ${name}: ${retries} times\n`).join('');

/** A reporter of vitest's: lists them at the end of the run. */
export default class RetriesReporter {
  onTestRunEnd(modules) {
    const retried = modules.flatMap((module) =>
      [...module.children.allTests()].map((test) => ({
        name: `${module.relativeModuleId}: ${test.fullName}`,
        retries: retriesOf(test),
      })),
    );
    process.stdout.write(listRetries(retried.filter(({ retries }) => retries > 0)));
  }
}
