// What labels look like: the palette of Okabe and Ito, which colour-blind people can tell apart. Never colour alone:
// wherever one stands for a label, the label stands beside it.

export const UNCERTAIN = "uncertain";

/** How labels are shown; `by` is "label" or "valence", `valence` maps a label to its group; the server says the rest. */
export const scheme = { by: "label", valence: {}, colours: { known: {}, others: ["#8c8c8c"], uncertain: "#c8c8c8" } };

/** Return what a label is shown as: itself, or its valence group. */
export function named(label) {
  if (!label) return UNCERTAIN;
  if (scheme.by === "label" || Object.values(scheme.valence).includes(label)) return label;
  return scheme.valence[label] ?? UNCERTAIN;
}

/** Return the colour of a shown label. */
export function colour(shown) {
  const { known, others, uncertain } = scheme.colours;
  if (shown === UNCERTAIN) return uncertain;
  return known[shown] ?? others[[...new TextEncoder().encode(shown)].reduce((sum, byte) => sum + byte, 0) % others.length];
}

/** Return black or white, whichever can be read on a colour. */
export function ink(background) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(background.slice(at, at + 2), 16) / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000000" : "#ffffff";
}

export const percent = (share) => `${Math.round(100 * share)}%`;
