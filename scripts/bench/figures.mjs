// Which figures there are. A figure has the name that the floor program gives the same work; `floor` is
// there where the names differ. `aim` is the greatest ratio to the floor that is good enough. Each
// group is a pair: groups/NAME.mjs measures the product, and the floor program's groups what it is
// compared with. A new figure is a line here and a `record` there.

const both = (figures) =>
  figures.flatMap(({ name, floor = name, ...rest }) => [
    { name, floor, ...rest },
    { name: `full_${name}`, floor: `full_${floor}`, ...rest },
  ]);

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
    figures: [
      only({ name: 'restore_chain_ready', floor: 'restore_file_ready' }),
      only({ name: 'restore_flat_ready', floor: 'restore_file_ready' }),
    ],
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
      only({ name: 'freeze_pause_populated_idle' }),
      only({ name: 'freeze_pause_populated' }),
    ],
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
