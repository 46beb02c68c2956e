/**
 * The code that a call is refused with; '' when it is not. vitest's `rejects` keeps a stack for each until the
 * test ends, and with it all that the sequence had: gigabytes in 2000 sequences.
 */
export async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return '';
  } catch (error) {
    return String((error as { code?: unknown }).code);
  }
}
