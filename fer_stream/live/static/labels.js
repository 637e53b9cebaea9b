// Colours and names of labels. The server sends the palette of Okabe and Ito, which colour-blind people can tell apart.
// The page never shows a colour without the label's text beside it.

export const UNCERTAIN = "uncertain";

/** How to show labels: `by` is "label" or "valence"; the server sends the rest (`valence` maps labels to groups). */
export const scheme = { by: "label", valence: {}, colours: { known: {}, others: ["#8c8c8c"], uncertain: "#c8c8c8" } };

/** Return the name under which a label is shown: the label or its valence group. */
export function named(label) {
  if (!label) return UNCERTAIN;
  if (scheme.by === "label" || Object.values(scheme.valence).includes(label)) return label;
  return scheme.valence[label] ?? UNCERTAIN;
}

/** Return the colour of a name that `named` returned. */
export function colour(shown) {
  const { known, others, uncertain } = scheme.colours;
  if (shown === UNCERTAIN) return uncertain;
  return known[shown] ?? others[[...new TextEncoder().encode(shown)].reduce((sum, byte) => sum + byte, 0) % others.length];
}

/** Return black or white, whichever is readable on "#rrggbb", from the relative luminance (WCAG 2). */
export function ink(background) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(background.slice(at, at + 2), 16) / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000000" : "#ffffff";
}

export const percent = (share) => `${Math.round(100 * share)}%`;
