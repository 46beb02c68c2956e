/** A manifest as bytes. */
import { requireArgument } from '../errors.js';
import { LIMITS, type Manifest } from './format.js';

/** `ERR_INVALID_ARGUMENT` when it is larger than registries take. */
export function encodeManifest(manifest: Manifest): Uint8Array {
  const bytes = Buffer.from(JSON.stringify(manifest, null, 2));
  requireArgument(
    bytes.length <= LIMITS.manifest,
    `the manifest has ${bytes.length} bytes, more than ${LIMITS.manifest}: write larger memory parts`,
  );
  return bytes;
}
