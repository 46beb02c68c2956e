// Which figures there are. A figure has the name that the floor program gives the same work; `floor` is
// there where the names differ, and null where the floor has no such work. `aim` is the greatest ratio to
// the floor that is good enough, `limit` the longest time. Each group is a pair: groups/NAME.mjs measures
// the product, and the floor program's groups what it is compared with. A new figure is a line here and a
// `record` there.

/** What the writing guests of the group `pause` write over and over. */
export const LATER_MIB = 16;

const both = (figures) =>
  figures.flatMap(({ name, floor = name, ...rest }) => [
    { name, floor, ...rest },
    { name: `full_${name}`, floor: `full_${floor}`, ...rest },
  ]);

// Microseconds: for the first freeze of a machine, and for a later one, by what it has written since.
const FIRST_PAUSE = { usPerGiB: 5000 };
const laterPause = (dirtyMiB) => ({ us: 1000 + 100 * dirtyMiB });

const only = ({ name, floor = name, ...rest }) => ({ name, floor, ...rest });

export const GROUPS = [
  {
    name: 'create',
    floorGroups: ['forks'],
    figures: both([
      { name: 'cold_create_ready', floor: 'cold_fork_ready' },
      { name: 'cold_create_first_exit', floor: 'cold_fork_first_exit' },
      { name: 'close' },
    ]),
  },
  {
    name: 'restore',
    floorGroups: ['files'],
    figures: both([
      { name: 'restore_file_ready', aim: 1.5 },
      { name: 'restore_file_first_exit', aim: 1.5 },
      { name: 'restore_open_ready', floor: 'restore_file_ready' },
    ]),
  },
  {
    name: 'chain',
    floorGroups: ['files'],
    figures: ['', '1000_'].flatMap((kind) => [
      only({ name: `restore_chain_${kind}ready`, floor: 'restore_file_ready' }),
      only({ name: `restore_flat_${kind}ready`, floor: 'restore_file_ready' }),
    ]),
  },
  {
    name: 'fork',
    floorGroups: ['forks'],
    figures: both([
      { name: 'cold_fork_ready', aim: 1.25 },
      { name: 'cold_fork_first_exit' },
      { name: 'pooled_fork_ready', aim: 1.5 },
      { name: 'pooled_fork_first_exit' },
    ]),
  },
  {
    name: 'reset',
    floorGroups: ['reset'],
    figures: both([
      { name: 'reset_10_pages', aim: 1.5 },
      { name: 'reset_100_pages' },
      { name: 'reset_1000_pages', aim: 1.3 },
    ]),
  },
  {
    name: 'freeze',
    floorGroups: ['freeze'],
    figures: [
      only({ name: 'freeze_pause_idle' }),
      only({ name: 'freeze_pause_populated_idle', limit: FIRST_PAUSE }),
      only({ name: 'freeze_pause_populated', limit: FIRST_PAUSE }),
    ],
  },
  {
    name: 'pause',
    floorGroups: [],
    figures: ['later', 'increment'].flatMap((kind) => [
      only({ name: `${kind}_pause_idle`, floor: null, limit: laterPause(0) }),
      only({ name: `${kind}_pause_writing`, floor: null, limit: laterPause(LATER_MIB) }),
    ]),
  },
  {
    name: 'harvest',
    floorGroups: ['dirty'],
    figures: [
      ['bitmap', 'bitmap'],
      ['bitmap_manual', 'manual'],
      ['ring', 'ring'],
    ].flatMap(([name, inFloor]) => [
      only({
        name: `harvest_${name}_4000_pages`,
        floor: `dirty_${inFloor}_harvest_4000_pages`,
        aim: 1.5,
      }),
      only({ name: `epoch_${name}_4000_pages`, floor: `dirty_${inFloor}_harvest_4000_pages` }),
    ]),
  },
  {
    name: 'save',
    floorGroups: ['save', 'durable'],
    figures: [
      only({ name: 'save_full_page_cache', aim: 1.67 }),
      only({ name: 'save_new_file' }),
      only({ name: 'save_full_durable' }),
    ],
  },
];

/** The groups that have a figure whose name matches, with those figures only. */
export function selectGroups(pattern) {
  return GROUPS.map((group) => ({
    ...group,
    figures: group.figures.filter(({ name }) => pattern.test(name)),
  })).filter(({ figures }) => figures.length > 0);
}

/** The longest time that is good enough for a machine of that size, in microseconds, if there is one. */
export function limitOf({ limit }, memoryMiB) {
  if (limit === undefined) return undefined;
  return (limit.us ?? 0) + ((limit.usPerGiB ?? 0) * memoryMiB) / 1024;
}
