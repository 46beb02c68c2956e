/**
 * Who else can change a store: other users who own it, or a directory on the way to it, or may write there.
 * They can put any snapshot in place of another, and links in place of directories. What a snapshot
 * says is checked in any case, but not that it is the one that its user took.
 */
import { lstatSync, realpathSync, type Stats } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { INDEX_FILE, LAYOUT_FILE } from './index-file.js';

const GROUP_MAY_WRITE = 0o020;
const OTHERS_MAY_WRITE = 0o002;
/** In such a directory only owners rename and remove what is theirs. */
const STICKY = 0o1000;

/** Sentences without an end, each of which names a path; none when only this user and root can. */
export function exposureOf(store: string): string[] {
  const path = resolve(store);
  const ways = new Set([...ancestorsOf(path), ...ancestorsOf(realPath(path))]);
  const inside = ['', 'blobs', join('blobs', 'sha256'), INDEX_FILE, LAYOUT_FILE];
  const parts = new Set(
    [path, realPath(path)].flatMap((root) => inside.map((name) => join(root, name))),
  );
  return [
    ...[...ways].flatMap((way) => problemsOf(way, true)),
    ...[...parts].flatMap((part) => problemsOf(part, false)),
  ];
}

function ancestorsOf(path: string): string[] {
  const parent = dirname(path);
  return parent === path ? [] : [...ancestorsOf(parent), parent];
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    // It is still to be made, or cannot be looked at: whoever opens it says so.
    return path;
  }
}

function problemsOf(path: string, isOnTheWay: boolean): string[] {
  const stats = look(path);
  if (stats === undefined) return [];
  const user = process.getuid?.() ?? 0;
  if (stats.uid !== 0 && stats.uid !== user) return [`${path} belongs to user ${stats.uid}`];
  // Of a link the owner counts; it has no mode of its own.
  if (stats.isSymbolicLink()) return [];
  if (isOnTheWay && (stats.mode & STICKY) !== 0) return [];
  if ((stats.mode & OTHERS_MAY_WRITE) !== 0) return [`everybody may write to ${path}`];
  // Where each user has a group of the same number, it is this user alone.
  const isShared = stats.gid !== 0 && stats.gid !== user;
  return (stats.mode & GROUP_MAY_WRITE) !== 0 && isShared
    ? [`group ${stats.gid} may write to ${path}`]
    : [];
}

function look(path: string): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
