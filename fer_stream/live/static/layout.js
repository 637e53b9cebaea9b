// How many tiles side by side: such that all of them are in view and as large as can be, or where they would be too
// small, as many as fit in width, and the page scrolls.

const GAP = 12;
const HEAD = 40; // of a tile, in pixels
const LANE = 21;
const SMALLEST = 220; // pixels across

export function arrange(grid, tables, tiles, enlarged) {
  const shown = enlarged ? [enlarged] : [...tiles.values()];
  if (!shown.length) return;
  const narrow = innerWidth < 720;
  const width = grid.clientWidth;
  const top = grid.getBoundingClientRect().top + scrollY;
  const legend = 44;
  // Of most of them; the others stand in a frame of black.
  const ratios = shown.map((tile) => tile.size[1] / tile.size[0]).sort((a, b) => a - b);
  const aspect = ratios[ratios.length >> 1];
  const all = innerHeight - top - legend;
  // The tables come into view too where the pictures stay large.
  const beside = all - tables.offsetHeight - 2 * GAP;
  const best = (height) => {
    let found = { across: 0, columns: 1, lanes: 2 };
    for (let columns = 1; columns <= shown.length; columns += 1) {
      const rows = Math.ceil(shown.length / columns);
      const lanes = rows === 1 ? 5 : rows === 2 ? 3 : 2;
      const room = (height - GAP * (rows - 1)) / rows - HEAD - lanes * LANE - 29;
      const across = Math.min((width - GAP * (columns - 1)) / columns, room / aspect);
      if (across > found.across) found = { across, columns, lanes };
    }
    return found;
  };
  let found = best(beside);
  if (found.across < 560) found = best(all);
  if (narrow || found.across < SMALLEST) {
    const columns = narrow ? 1 : Math.max(1, Math.floor((width + GAP) / (300 + GAP)));
    found = { across: (width - GAP * (columns - 1)) / columns, columns, lanes: 3 };
  }
  grid.style.gridTemplateColumns = `repeat(${found.columns}, ${Math.floor(found.across)}px)`;
  grid.style.setProperty("--lanes", found.lanes);
  grid.style.setProperty("--aspect", 1 / aspect);
  for (const tile of tiles.values()) {
    tile.lanes = found.lanes;
    // Below each other, each has its own form.
    if (found.columns === 1) tile.element.style.setProperty("--aspect", tile.size[0] / tile.size[1]);
    else tile.element.style.removeProperty("--aspect");
  }
}
