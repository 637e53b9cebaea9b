// The number of columns of tiles. All tiles fit into the window, as large as possible. If they would be too small, the
// columns fill the width and the page scrolls.

const GAP = 12; // pixels, as all sizes here
const HEAD = 40; // height of a tile's header
const LANE = 21; // height of a lane
const SMALLEST = 220; // width of a tile

/** Set the grid's columns and the number of lanes of each tile; `enlarged` is the only tile shown, or null. */
export function arrange(grid, tables, tiles, enlarged) {
  const shown = enlarged ? [enlarged] : [...tiles.values()];
  if (!shown.length) return;
  const narrow = innerWidth < 720;
  const width = grid.clientWidth;
  const top = grid.getBoundingClientRect().top + scrollY;
  const legend = 44;
  // All tiles get the median aspect ratio; pictures with another one get black bars.
  const ratios = shown.map((tile) => tile.size[1] / tile.size[0]).sort((a, b) => a - b);
  const aspect = ratios[ratios.length >> 1];
  const all = innerHeight - top - legend;
  // Leave room for the tables if the pictures stay large enough.
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
    // In a single column each tile keeps its own aspect ratio.
    if (found.columns === 1) tile.element.style.setProperty("--aspect", tile.size[0] / tile.size[1]);
    else tile.element.style.removeProperty("--aspect");
  }
}
