// Times in the viewer's time zone. All times are milliseconds since 1970.

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800]
  .map((seconds) => seconds * SECOND);
const MONTHS = [1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200];
const MONTH = 30.4 * DAY;
const format = (options) => new Intl.DateTimeFormat(undefined, options);
const whole = format({ dateStyle: "medium", timeStyle: "medium" });
const exact = format({ year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "shortOffset" });
const zoned = format({ timeZoneName: "shortOffset" });
const clock = format({ timeStyle: "medium" });
const short = format({ timeStyle: "short" });
const date = format({ day: "numeric", month: "short" });
const month = format({ year: "numeric", month: "short" });

const shift = (time) => new Date(time).getTimezoneOffset() * MINUTE;
const offset = (time) => zoned.formatToParts(time).find((part) => part.type === "timeZoneName").value;

/** Return a time to the second; where the clocks change, with its offset, because an hour comes twice. */
export const moment = (time) => (shift(time - 3 * HOUR) === shift(time + 3 * HOUR) ? whole : exact).format(time);

/** Return which clock the times of a period are by. */
export function zone(from, to) {
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (shift(from) === shift(to)) return `times in ${name}, ${offset(from)}`;
  let [before, after] = [from, to];
  while (after - before > 1) {
    const middle = Math.floor((before + after) / 2);
    if (shift(middle) === shift(from)) before = middle; else after = middle;
  }
  return `times in ${name}, ${offset(from)}, and ${offset(after)} from ${whole.format(after)}`;
}

/** Return a length of time in words, with at most two units. */
export function duration(seconds) {
  const rest = Math.round(seconds);
  if (rest < 1) return seconds > 0 ? "less than 1 s" : "0 s";
  const parts = [[Math.floor(rest / 86400), "d"], [Math.floor(rest / 3600) % 24, "h"], [Math.floor(rest / 60) % 60, "min"], [rest % 60, "s"]];
  const first = parts.findIndex(([count]) => count);
  return parts.slice(first, first + 2).filter(([count]) => count).map(([count, unit]) => `${count} ${unit}`).join(" ");
}

/** Return the value of a datetime-local input. */
export function local(time) {
  const at = new Date(time);
  const two = (number, width = 2) => String(number).padStart(width, "0");
  return `${two(at.getFullYear(), 4)}-${two(at.getMonth() + 1)}-${two(at.getDate())}T${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Return the time in a datetime-local input. One that still shows `before` is that time: its text may name two hours. */
export const entered = (text, before) => (text === local(before) || `${text}:00` === local(before) ? before : new Date(text).getTime());

/** Return [time, text] of the marks of an axis, about `most` of them. */
export function ticks(from, to, most) {
  const step = STEPS.find((each) => (to - from) / each <= most);
  return step ? hours(from, to, step) : months(from, to, MONTHS.find((each) => (to - from) / (each * MONTH) <= most) ?? MONTHS.at(-1));
}

function hours(from, to, step) {
  const found = [];
  const next = (time) => time + ((step - ((time - shift(time)) % step)) % step); // where the viewer's clock shows a multiple
  for (let at = next(from); at <= to; at = next(at + step)) {
    const midnight = new Date(at).getHours() === 0 && new Date(at).getMinutes() === 0;
    const form = step >= DAY || (midnight && step >= MINUTE) ? date : step < MINUTE ? clock : short;
    found.push([at, form.format(at)]);
  }
  return found;
}

function months(from, to, step) {
  const found = [];
  const begin = new Date(from);
  const first = Math.floor((begin.getFullYear() * 12 + begin.getMonth()) / step) * step;
  for (let number = first, at = from; at <= to; number += step) {
    at = new Date(Math.floor(number / 12), number % 12, 1).getTime();
    if (at >= from && at <= to) found.push([at, month.format(at)]);
  }
  return found;
}
