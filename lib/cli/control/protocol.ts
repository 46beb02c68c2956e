/**
 * What a client and the process that hosts a machine say to each other over its control socket: one
 * JSON object a line. Both sides check what they get. docs/cli.md, "Control socket".
 */
import { z } from 'zod';
import { TRACKERS } from '../../dirty/epoch.js';
import { ERROR_CODES, type ErrorCode, KvmsnapError } from '../../errors.js';
import { stopSchema } from '../stop.js';
import { MACHINE_NAME } from '../values.js';
import { MAX_CONSOLE_CHUNK } from './lines.js';

export const PROTOCOL_VERSION = 1;

const id = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
const path = z
  .string()
  .min(1)
  .max(4096)
  .regex(/^\/[^\0]*$/);
const consoleData = z.base64().max(Math.ceil(MAX_CONSOLE_CHUNK / 3) * 4);

export const requestSchema = z.discriminatedUnion('op', [
  z.strictObject({ id, op: z.literal('status') }),
  z.strictObject({ id, op: z.literal('pause') }),
  z.strictObject({ id, op: z.literal('resume') }),
  /** `kill`: do not wait until the guest stands still. */
  z.strictObject({ id, op: z.literal('stop'), kill: z.boolean() }),
  z.strictObject({
    id,
    op: z.literal('snapshot'),
    /** Absolute: the host process has another working directory. */
    store: path,
    tag: z.string().max(256).optional(),
    /** Tag or digest of a snapshot in that store. */
    parent: z.string().max(256).optional(),
    then: z.enum(['resume', 'pause', 'stop']),
    annotations: z.record(z.string().max(256), z.string().max(4096)).optional(),
  }),
  /** An `epoch` for each harvest, until there were `count`, or the connection ends. */
  z.strictObject({
    id,
    op: z.literal('dirty'),
    tracker: z.enum(TRACKERS),
    /** Milliseconds. */
    every: z.number().min(0).max(86_400_000),
    count: z.int().positive().optional(),
  }),
  /** From now on the connection gets console output, beginning with what is kept of it. */
  z.strictObject({ id, op: z.literal('attach') }),
  /** Answered when the guest's serial queue has taken it. */
  z.strictObject({ id, op: z.literal('input'), data: consoleData }),
]);
export type Request = z.infer<typeof requestSchema>;

const errorSchema = z.object({
  code: z.string().max(64),
  message: z.string().max(16_384),
});

/** A dirty epoch without its pages, which would not fit on a line. */
export const epochSchema = z.object({
  /** Milliseconds since tracking started. */
  at: z.number().nonnegative(),
  /** Pages written. */
  pages: z.int().nonnegative(),
  harvestUs: z.number().nonnegative(),
  lostUs: z.number().nonnegative(),
  slots: z
    .array(
      z.object({
        slot: z.int().nonnegative(),
        gpa: z.string().regex(/^0x[0-9a-f]{1,16}$/),
        /** Pages that it has, and those that were written. */
        size: z.int().positive(),
        pages: z.int().nonnegative(),
      }),
    )
    .max(1024),
  /** Share of pages that were written, from 0 to 1, in equal stretches of memory, by address. */
  heat: z.array(z.number().min(0).max(1)).max(2048),
});
export type EpochSummary = z.infer<typeof epochSchema>;

export const dirtyResultSchema = z.object({ epochs: z.int().nonnegative() });

export const replySchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('result'), id, result: z.unknown() }),
  /** Without id: for the connection, which then ends. */
  z.object({ kind: z.literal('error'), id: id.optional(), error: errorSchema }),
  z.object({
    kind: z.literal('progress'),
    id,
    done: z.number().nonnegative(),
    total: z.number().nonnegative(),
  }),
  z.object({ kind: z.literal('epoch'), id, epoch: epochSchema }),
  z.object({ kind: z.literal('output'), data: consoleData }),
  /** The machine is gone; the last message. */
  z.object({ kind: z.literal('stopped'), stop: stopSchema }),
]);
export type Reply = z.infer<typeof replySchema>;

export const statusSchema = z.object({
  protocol: z.literal(PROTOCOL_VERSION),
  name: z.string().regex(MACHINE_NAME),
  pid: z.int().positive(),
  status: z.enum(['created', 'running', 'paused', 'stopped', 'poisoned', 'closed']),
  /** RFC 3339. */
  started: z.iso.datetime(),
  vcpus: z.int().positive(),
  /** Bytes. */
  memory: z.number().positive(),
  /** What it runs, for people. */
  guest: z.string().max(1024),
});
export type MachineInfo = z.infer<typeof statusSchema>;

export const snapshotResultSchema = z.object({
  digest: z.string().max(128),
  tag: z.string().max(256).optional(),
  pauseMs: z.number(),
  writeMs: z.number(),
  bytes: z.number(),
  pages: z.number(),
});
export type SnapshotResult = z.infer<typeof snapshotResultSchema>;

export function packError(error: unknown): z.infer<typeof errorSchema> {
  const message = error instanceof Error ? error.message : String(error);
  return {
    code: error instanceof KvmsnapError ? error.code : 'ERR_CONTROL',
    message: message.slice(0, 16_384),
  };
}

/** The error that the other process had. A code that this release does not know is ERR_CONTROL. */
export function unpackError({ code, message }: z.infer<typeof errorSchema>): KvmsnapError {
  const known = Object.hasOwn(ERROR_CODES, code) ? (code as ErrorCode) : 'ERR_CONTROL';
  return new KvmsnapError(known, message);
}

/** Checks a message from the other side. `ERR_CONTROL`. */
export function checkMessage<T extends z.ZodType>(schema: T, value: unknown): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new KvmsnapError(
    'ERR_CONTROL',
    `a message of the control protocol is wrong: ${issue?.path.join('.')} ${issue?.message}. ` +
      'Client and host process must be of the same release',
  );
}
