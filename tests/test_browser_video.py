"""Clips in a browser: what a visitor does and sees."""

from __future__ import annotations

from browsing import wait_for_text

from train.screenshot import open_tab


def read(page, clip) -> None:
    page.set_input_files("#clip input[type=file]", clip)
    page.wait_for_selector("#clip video")
    page.get_by_role("button", name="Read the clip").click()


def test_clip_gives_annotated_clip_timeline_and_table(page, clip, tmp_path):
    open_tab(page, "Video")
    read(page, clip)
    wait_for_text(page, "#video-status", r"^20 frames, .* 1 face\.$")
    page.wait_for_function("document.querySelector('#annotated video')?.videoWidth == 640")
    page.locator("#timeline").scroll_into_view_if_needed()
    plot = page.locator("#timeline svg").first.bounding_box()
    page.mouse.move(plot["x"] + plot["width"] / 2, plot["y"] + 50)
    page.mouse.down()
    page.mouse.move(plot["x"] + plot["width"] / 2 + 40, plot["y"] + 50, steps=5)
    page.mouse.up()
    page.wait_for_function("document.querySelector('#annotated video').currentTime > 0.3")
    with page.expect_download() as table:
        page.locator("#csv").click()
    rows = table.value.path().read_text().splitlines()
    assert rows[0].startswith("frame,seconds,face,") and len(rows) == 21

    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    page.locator("#clip").get_by_label("Clear").click()
    wait_for_text(page, "#video-status", "^Every face of the clip is followed")
    assert not page.locator("#annotated").is_visible() and not page.locator("#timeline").is_visible()
    read(page, tmp_path / "broken.mp4")
    wait_for_text(page, "#video-status", r"'broken\.mp4' is not a clip[^/]*\.$")


def test_example_clip_has_two_faces(page):
    open_tab(page, "Video")
    page.get_by_role("button", name="Example two_faces").click()
    page.wait_for_selector("#clip video")
    page.get_by_role("button", name="Read the clip").click()
    wait_for_text(page, "#video-status", r"^75 frames, .* 2 faces\.$")

    page.locator("#clip").get_by_label("Clear").click()
    wait_for_text(page, "#video-status", "^Every face of the clip is followed")
    page.get_by_role("button", name="Example two_faces").click()  # which comes from the same place again
    page.wait_for_selector("#clip video")
    page.get_by_role("button", name="Read the clip").click()
    wait_for_text(page, "#video-status", r"^75 frames, .* 2 faces\.$")


def test_a_clip_that_is_taken_away_is_read_no_further(page, long, clip):
    open_tab(page, "Video")
    read(page, long)
    wait_for_text(page, "#video-status", r"Reading the clip - \d")
    page.locator("#clip").get_by_label("Clear").click()
    wait_for_text(page, "#video-status", "^Every face of the clip is followed")
    read(page, clip)
    wait_for_text(page, "#video-status", r"^20 frames, .* 1 face\.$")


def test_who_leaves_lets_others_read_their_clips(page, browser, app, long, clip):
    leaver = browser.new_page()
    leaver.goto(app.url)
    leaver.get_by_role("tab", name="Video").wait_for()
    open_tab(leaver, "Video")
    read(leaver, long)
    wait_for_text(leaver, "#video-status", r"Reading the clip - \d")
    leaver.close()
    open_tab(page, "Video")
    read(page, clip)
    wait_for_text(page, "#video-status", r"^20 frames, .* 1 face\.$")
