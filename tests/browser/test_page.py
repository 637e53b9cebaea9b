"""The live page in a real browser: it shows what the service reports, also after processes were restarted."""

from __future__ import annotations

import base64
import json
import re
import statistics
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from foreign import measuring
from playwright.sync_api import expect
from processes import PATIENCE, Cli, free_port, wait_for
from served import Service

from fer_stream import plugins
from fer_stream.client import status, subscribe
from fer_stream.events import cloudevents
from fer_stream.settings import tree
from fer_stream.types import Event, EventType, GapData, Nanoseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page
    from processes import Process

    Contrasts = Callable[[Page], list[tuple[float, str]]]

FACES = """() => { const tile = document.querySelector(".tile"); return {
  frame: Number(tile.dataset.frame),
  boxes: Object.fromEntries([...tile.querySelectorAll(".face")].map((face) => [face.dataset.track,
    ["left", "top", "width", "height"].map((side) => parseFloat(face.style[side]) / 100)])),
  captions: [...tile.querySelectorAll(".face span")].map((text) => text.textContent),
  picture: tile.querySelector("canvas").toDataURL("image/png"),
}; }"""


class Site:
    """An aggregator, a worker, the camera ``film`` and a page, each in its own process, which tests may kill."""

    def __init__(self, folder: Path, short: Path, model: Path, clip: Path) -> None:
        self.cli = Cli(folder, model)
        self.clip = clip
        self.address = f"ipc://{short}"
        self.settings = tree.load({"address": self.address})
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.aggregator = self.start_aggregator()
        self.worker = self.cli.start("worker", "--connect", self.address)
        self.film = self.start_film()
        self.live = self.start_live(self.port)
        with subscribe(after=0, types=["emotion.started"], settings=self.settings) as events:
            wait_for(lambda: events.receive(1.0), "an emotion", log=lambda: self.worker.err)

    def start_aggregator(self) -> Process:
        return self.cli.start("aggregator", "--bind", self.address, "--journal", "events.db")

    def start_film(self) -> Process:
        return self.cli.start("capture", self.clip, "--camera", "film", "--loop", "--connect", self.address)

    def start_live(self, port: int, *more: str) -> Process:
        process = self.cli.start("live", "--page", f"127.0.0.1:{port}", "--connect", self.address, *more)
        process.until(lambda: "the live page is at" in process.out, "the page")
        return process


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, clip: Path) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as short:
        made = Site(tmp_path_factory.mktemp("site"), Path(short), tiny_model, clip)
        yield made
        made.cli.close()


class Observations(threading.Thread):
    """Collects all observations of ``film`` by frame number, as another subscriber beside the page."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self._peer = plugins.transport(site.settings).subscribe(site.address, "observations", ["film/"])
        self._ended = False
        self.seen: dict[int, dict[str, Any]] = {}
        self.start()

    def run(self) -> None:
        while not self._ended:
            parts = self._peer.receive(0.2)
            if parts is not None:
                body = json.loads(bytes(parts[1]))
                self.seen[body["frame"]] = body
        self._peer.close()

    def close(self) -> None:
        self._ended = True
        self.join()


def looks(page: Page, number: int) -> Iterator[dict[str, Any]]:
    """Yield ``number`` snapshots of the page, each of another frame with a face."""
    last = 0
    while number:
        found = page.evaluate(FACES)
        if found["frame"] != last and found["boxes"]:
            last, number = found["frame"], number - 1
            png = base64.b64decode(found["picture"].partition(",")[2])
            found["image"] = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
            yield found
        page.wait_for_timeout(50)


def likeness(image: np.ndarray, original: np.ndarray) -> float:
    """Return the correlation of two pictures' fine detail (grey, high-pass filtered): 1 the same, 0 unrelated."""
    greys = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(float) for picture in (image, original)]
    fine = [(grey - cv2.GaussianBlur(grey, (0, 0), 2)).ravel() for grey in greys]
    return float(np.corrcoef(*fine)[0, 1])


def inside(image: np.ndarray, box: list[float]) -> np.ndarray:
    height, width = image.shape[:2]
    x, y, w, h = box
    return image[max(0, int(y * height)) : int((y + h) * height), max(0, int(x * width)) : int((x + w) * width)]


def test_boxes_lie_on_the_faces_and_the_faces_are_blurred(site: Site, page: Callable[..., Page]) -> None:
    observations = Observations(site)
    open_port = free_port()
    site.start_live(open_port, "--show-faces")
    shown = {True: page(site.url), False: page(f"http://127.0.0.1:{open_port}/")}
    film = cv2.VideoCapture(str(site.clip))
    pictures = [film.read()[1] for _ in range(60)]
    alike: dict[bool, list[float]] = {True: [], False: []}
    for blurred, one in shown.items():
        for look in looks(one, 4):
            seen = wait_for(lambda look=look: observations.seen.get(look["frame"]), "the observation")
            width, height = seen["size"]
            assert {str(track["track"]) for track in seen["tracks"]} == look["boxes"].keys()
            for track in seen["tracks"]:
                x1, y1, x2, y2 = track["box"]
                expected = (x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height)
                box = look["boxes"][str(track["track"])]
                assert box == pytest.approx(expected, abs=1e-4)
                caption = f"#{track['track']} happy {int(100 * track['probabilities']['happy'] + 0.5)}%"
                assert not track["label"] or caption in look["captions"]
                # The same frame of the recording, at the size in which it is shown.
                size = look["image"].shape[1::-1]
                original = cv2.resize(pictures[(look["frame"] - 1) % 60], size, interpolation=cv2.INTER_AREA)
                alike[blurred].append(likeness(inside(look["image"], box), inside(original, box)))
                outside = np.ones(original.shape[:2], bool)
                inside(outside, [box[0] - box[2], box[1] - box[3], 3 * box[2], 3 * box[3]])[:] = False
                if len(seen["tracks"]) == 1 and len(seen["face_regions"]) == 1:
                    difference = np.abs(look["image"].astype(int) - original)[outside].mean()
                    assert difference < 4, "the picture and the boxes are of the same frame"
    observations.close()
    assert max(alike[True]) < 0.3, "blurred faces keep no fine detail"
    assert min(alike[False]) > 0.7


def test_each_measure_is_a_line_of_a_face(
    page: Callable[..., Page], clip: Path, tmp_path: Path, short_folder: Path
) -> None:
    made = Site(tmp_path, short_folder, measuring(tmp_path / "measuring.onnx"), clip)
    observations = Observations(made)
    with closing(made.cli), closing(observations):
        one = page(made.url)
        expect(one.locator(".tile .face").first).to_be_visible()
        for look in looks(one, 3):
            seen = wait_for(lambda look=look: observations.seen.get(look["frame"]), "the observation")
            measured = [track for track in seen["tracks"] if "measures" in track]
            for track in measured:
                levels = ", ".join(f"{name} {value:.2f}" for name, value in track["measures"].items())
                assert levels.startswith("valence ")
                assert any(
                    text.startswith(f"#{track['track']} ") and text.endswith(levels) for text in look["captions"]
                )
        assert measured


def test_an_event_appears_within_a_second_of_its_publication(site: Site, page: Callable[..., Page]) -> None:
    one = page(site.url)
    one.evaluate("""() => { window.appeared = {}; new MutationObserver((changes) => {
        for (const { addedNodes } of changes) for (const row of addedNodes) {
            window.appeared[row.dataset.cursor] ??= Date.now();
    } }).observe(document.getElementById("events"), { childList: true }); }""")
    expect(one.locator("#events li").first).to_be_visible()
    published = {}
    with subscribe(types=["face", "emotion.started", "emotion.ended"], settings=site.settings) as events:
        while len(published) < 5:
            found = events.receive(60)
            assert found is not None
            published[found[0].cursor] = time.time()
    one.wait_for_function("(cursor) => window.appeared[cursor]", arg=list(published)[-1])
    appeared = one.evaluate("window.appeared")
    delays = [appeared[cursor] / 1000 - when for cursor, when in published.items()]
    assert statistics.median(delays) < 1, "median seconds from publication to display"


def test_events_are_filtered_by_word_and_kind(site: Site, page: Callable[..., Page]) -> None:
    one = page(site.url)
    rows = one.locator("#events li")
    expect(one.locator("#events li[data-type='face.entered']").first).to_be_visible()
    one.get_by_role("checkbox", name="Faces").uncheck(force=True)
    expect(one.locator("#events li[data-type^='face']")).to_have_count(0)
    one.get_by_role("searchbox").fill("happy film")
    expect(rows.first).to_be_visible()
    assert all("happy" in text for text in rows.all_inner_texts())
    one.get_by_role("searchbox").fill("nothing like it")
    expect(rows).to_have_count(0)
    expect(one.locator("#count")).to_contain_text("0 of ")


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (GapData("3", "40", "retention"), "events after cursor 3, up to 40, are gone: retention"),
        (GapData("40", "0", "another journal"), "all events anew: another journal"),
    ],
)
def test_a_gap_is_described_in_words(site: Site, page: Callable[..., Page], gap: GapData, words: str) -> None:
    event = json.loads(cloudevents.encode(Event(EventType.STREAM_GAP, "", 0, 0, 0, Nanoseconds(0), gap)))
    text = page(site.url).evaluate("event => import('/events.js').then(events => events.sentence(event))", event)
    assert text.endswith(words)


def test_a_camera_without_new_events_does_not_show_an_hour_old_face_as_current(
    site: Site, page: Callable[..., Page]
) -> None:
    lanes = page(site.url).evaluate("""async () => {
        const { Tile } = await import("/tile.js");
        const tile = new Tile("quiet", { enlarge() {}, shown() {} });
        document.body.append(tile.element);
        const now = Date.now(), iso = (ago) => new Date(now - 1000 * ago).toISOString();
        const event = (type, ago, end_time) => tile.history.take({
            type, time: iso(ago), epoch: 1, subject: "tracks/1", source: "/cameras/quiet",
            data: { start_time: iso(3600), end_time },
        });
        event("face.entered", 3600, null);
        event("face.left", 3580, iso(3580));
        const found = [];
        const look = () => { tile.tick(); found.push(tile.element.querySelectorAll(".lanes li").length); };
        look();
        tile.update({ state: "online", rate: 10, frame_age_s: 0.01 }, true);
        const canvas = document.createElement("canvas");
        const blob = await new Promise((made) => canvas.toBlob(made, "image/jpeg"));
        const show = async (ago) => {
            const time = 1e6 * (now - 1000 * ago);
            await tile.show({ time, size: [4, 3], frame: 1, tracks: [], camera: "quiet" }, blob);
            await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
        };
        await show(0);
        look();
        await show(3590);
        look();
        tile.element.remove();
        return found;
    }""")
    assert lanes == [1, 0, 1], "before the first picture, after a current one, after a loop of the recording"


def test_the_hour_after_midnight_is_00(site: Site, page: Callable[..., Page]) -> None:
    event = json.loads(
        cloudevents.encode(Event(EventType.STREAM_GAP, "", 0, 0, 0, Nanoseconds(0), GapData("3", "40", "x")))
    )
    text = page(site.url).evaluate(
        """async (event) => {
            event.time = new Date(2026, 0, 1, 0, 5).toISOString();
            return (await import("/events.js")).sentence(event);
        }""",
        event,
    )
    assert text.startswith("00:05:00")


def test_a_camera_goes_offline_and_comes_back(site: Site, page: Callable[..., Page]) -> None:
    one = page(site.url)
    tile = one.locator(".tile[data-camera=film]")
    expect(tile).to_have_attribute("data-state", "online")
    expect(tile.locator(".face").first).to_be_visible()
    site.film.kill()
    expect(tile).to_have_attribute("data-state", "offline")
    expect(tile.locator(".veil")).to_have_text("Offline")
    expect(tile.locator(".face")).to_have_count(0)
    expect(one.locator("#health")).to_contain_text("film is offline")
    expect(one.locator("#events li[data-type='camera.offline']").first).to_contain_text("capture silent")
    site.film = site.start_film()
    expect(tile).to_have_attribute("data-state", "online")
    expect(tile.locator(".face").first).to_be_visible()
    expect(one.locator("#health")).to_contain_text("All well")


def test_the_page_reconnects_by_itself_after_a_restart(site: Site, page: Callable[..., Page]) -> None:
    one = page(site.url)
    expect(one.locator(".face").first).to_be_visible()
    one.evaluate("window.same = true")
    for role, banner in (("live", "No connection"), ("aggregator", "The aggregator does not answer")):
        getattr(site, role).kill()
        expect(one.locator("#banner")).to_contain_text(banner)
        restarted = site.start_live(site.port) if role == "live" else site.start_aggregator()
        setattr(site, role, restarted)
        expect(one.locator("#banner")).to_be_hidden()
        frame = one.locator(".tile").get_attribute("data-frame")
        expect(one.locator(".tile")).not_to_have_attribute("data-frame", frame or "")
        expect(one.locator(".face").first).to_be_visible()
    assert one.evaluate("window.same"), "the page was not reloaded"


def test_every_control_works_by_keyboard(site: Site, page: Callable[..., Page]) -> None:
    one = page(site.url)
    expect(one.locator(".tile")).to_be_visible()
    reached = []
    for _ in range(40):
        one.keyboard.press("Tab")
        reached.append(one.evaluate("document.activeElement.id || document.activeElement.value || "
                                    "document.activeElement.className"))  # fmt: skip
        if reached[-1] == "events":
            break
    wanted = ["skip", "link", "label", "pause", "enlarge", "scroll", "scroll", "words", "expression", "face", "camera"]
    assert reached == [*wanted, "updated", "events"], "every control, in visual order"
    one.get_by_role("button", name="Enlarge film").focus()
    one.keyboard.press("Enter")
    expect(one.get_by_role("button", name="Show all cameras")).to_have_attribute("aria-pressed", "true")
    one.keyboard.press("Escape")
    expect(one.get_by_role("button", name="Enlarge film")).to_be_focused()
    one.get_by_role("radio", name="Expression").focus()
    one.keyboard.press("ArrowRight")
    expect(one.get_by_role("radio", name="Valence")).to_be_checked()
    expect(one.locator(".face span").first).to_contain_text("positive")
    one.get_by_role("button", name="Pause").press("Space")

    def done() -> int:
        found: int = status(site.settings, PATIENCE)["cameras"]["film"]["ledger"]["done"]
        return found

    def still() -> bool:
        shown, before = one.locator(".tile").get_attribute("data-frame"), done()
        wait_for(lambda: done() > before + 10, "frames")
        return one.locator(".tile").get_attribute("data-frame") == shown

    wait_for(still, "the picture to stand still")
    assert still()
    frame = one.locator(".tile").get_attribute("data-frame") or ""
    one.get_by_role("button", name="Resume").press("Space")
    expect(one.locator(".tile")).not_to_have_attribute("data-frame", frame)


CONTROLS = {"button", "textbox", "searchbox", "checkbox", "radio", "link", "image", "table", "group", "list", "search"}


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1920, 1080)])
def test_the_page_is_accessible(
    site: Site, page: Callable[..., Page], contrasts: Contrasts, scheme: str, width: int, height: int
) -> None:
    one = page(site.url, color_scheme=scheme, viewport={"width": width, "height": height})
    expect(one.locator(".face").first).to_be_visible()
    nodes = one.context.new_cdp_session(one).send("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in nodes if not node["ignored"]]
    for landmark in ("banner", "main", "complementary", "contentinfo", "search"):
        assert roles.count(landmark) == 1, landmark
    unnamed = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in CONTROLS - {"list", "group"}
        and not node.get("name", {}).get("value") and node["role"]["value"] != "table"
    ]  # fmt: skip
    assert not unnamed, "every control and picture has a name"
    assert one.evaluate("document.documentElement.lang") == "en"
    assert one.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page does not scroll sideways"
    ids = one.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    found = contrasts(one)
    assert len(found) > 30
    assert [text for ratio, text in found if ratio < 4.5] == [], "all text has enough contrast (WCAG 1.4.3)"
    controls = "button, .segments span, .chips span, input[type=search]"
    small = one.evaluate(
        """(controls) => [...document.querySelectorAll(controls)]
        .map((element) => element.getBoundingClientRect())
        .filter((box) => Math.min(box.width, box.height) < 24).length""",
        controls,
    )
    assert not small, "all controls are large enough (WCAG 2.5.8)"


def test_a_token_is_asked_for_once(site: Site, page: Callable[..., Page], tmp_path: Path) -> None:
    token = tmp_path / "live.token"
    token.write_text("0123456789abcdef-token")
    token.chmod(0o600)
    port = free_port()
    site.start_live(port, "--token-file", str(token))
    one = page(f"http://127.0.0.1:{port}/")
    expect(one.locator(".tile")).to_have_count(0)
    one.get_by_label("Token").fill("not the token")
    one.get_by_role("button", name="Enter").click()
    one.get_by_label("Token").fill("0123456789abcdef-token")
    one.get_by_label("Token").press("Enter")
    expect(one.locator(".face").first).to_be_visible()
    one.reload()
    expect(one.locator(".face").first).to_be_visible()
    other = page(f"http://127.0.0.1:{port}/?token=0123456789abcdef-token")
    expect(other.locator(".face").first).to_be_visible()
    assert "token" not in other.url


def test_sixteen_cameras(
    short_folder: Path, tiny_model: Path, clip: Path, page: Callable[..., Page], capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"camera-{number:02}" for number in range(1, 17)]
    service = Service(
        short_folder, tiny_model, {name: {"source": str(clip), "loop": True, "rate": 1} for name in names}
    )
    try:
        text = ""

        def printed() -> str:
            nonlocal text
            text += capsys.readouterr().out
            return text

        service.pipeline()
        url, _ = service.live(printed)
        wall = page(url, viewport={"width": 1920, "height": 1080})
        expect(wall.locator(".tile[data-frame]")).to_have_count(16)
        assert wall.locator("h3").all_inner_texts() == names, "sorted by name"
        boxes = [box for tile in wall.locator(".tile").all() if (box := tile.bounding_box())]
        assert all(box["y"] + box["height"] <= 1080 for box in boxes), "all tiles fit on a 1920x1080 screen"
        assert min(box["width"] for box in boxes) > 200
        phone = page(url, viewport={"width": 390, "height": 844})
        expect(phone.locator(".tile")).to_have_count(16)
        expect(phone.locator(".tile[data-frame]").first).to_be_visible()
        assert phone.locator(".tile[data-frame]").count() < 6, "pictures out of view are not fetched"
        phone.locator(".tile").last.scroll_into_view_if_needed()
        expect(phone.locator(".tile").last).to_have_attribute("data-frame", re.compile(r"\d+"))
    finally:
        service.close()
