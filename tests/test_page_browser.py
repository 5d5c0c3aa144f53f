"""Tests of the page in headless Chromium.

The page plays and fetches nothing, obeys mouse and keyboard, computes the same values as Python, and overlays the
right cells.
"""

import base64
import csv
import dataclasses
import time

import numpy as np
import PIL.Image
import pytest
from clips import clicks, encode, numbered
from pages import record
from test_video import MARKERS, extent, marked

from stattn_jax import colours
from stattn_jax.explain import half_cells, page, sentences
from stattn_jax.explain.explanation import GroundTruth

CLASSES = tuple(f'class {c}' for c in range(12))
T = 4
PLACE = 'document.querySelector("#seek").getAttribute("aria-valuenow")'


@pytest.fixture(scope='module')
def explained(tmp_path_factory):
    """A clip of four seconds, its record (the last second has no data) and its page."""
    folder = tmp_path_factory.mktemp('page')
    source = encode(folder / 'a.mp4', numbered(40), np.arange(40) / 10, clicks(4, [1.5])[None])
    e = record(CLASSES, t=T, source=source, valid=[True, True, True, False])
    (folder / 'explanation.html').write_text(page.render(e, truth=GroundTruth([(0.5, 1.5)])), encoding='utf-8')
    return e, folder / 'explanation.html'


@pytest.fixture
def opened(chromium, explained):
    chromium.open(explained[1])
    chromium.until('document.querySelector("video").readyState >= 2')
    return chromium


def number(text):
    return float(text.replace('\N{MINUS SIGN}', '-').replace('+', ''))


def seeked(driver, to, slack=0.02):
    driver.until(f'Math.abs(document.querySelector("video").currentTime - {to}) < {slack}')


def test_it_plays_with_sound_from_a_file_and_asks_for_nothing(opened):
    assert opened.run('document.querySelector("video").muted') is False
    # The page opens at the strongest second, which is near the end; on a busy machine the clip would end in between.
    opened.run('document.querySelector("video").loop = true, document.querySelector("video").currentTime = 0')
    seeked(opened, 0)
    opened.click('#play')
    opened.until('document.querySelector("video").currentTime > 0.3')
    opened.until('document.querySelector("#play").textContent == "Pause"')
    opened.press(' ')
    opened.until('document.querySelector("video").paused')
    assert [url for url in opened.requests() if not url.startswith(('data:', 'blob:'))] == [opened.run('location.href')]
    assert opened.complaints() == []


def test_the_policy_blocks_images_and_inline_styles(opened):
    """The policy blocks an image and an inline style, so the test above is able to fail."""
    opened.run('document.body.append(Object.assign(new Image(), {src: "https://example.org/a.png"}))')
    opened.run('document.body.insertAdjacentHTML("beforeend", "<p id=evil style=\\"color: rgb(1, 2, 3)\\">x</p>")')
    assert opened.run('getComputedStyle(document.querySelector("#evil")).color') != 'rgb(1, 2, 3)'
    time.sleep(0.2)
    assert any('Content Security Policy' in complaint for complaint in opened.complaints())


def strongest(e, c):
    return int(np.unravel_index(e.visual[c].argmax(), e.visual[c].shape)[0])


def test_it_opens_at_the_strongest_cell(opened, explained):
    e, _ = explained
    t = strongest(e, 0)
    assert t != 0
    seeked(opened, t + 0.5)
    assert float(opened.run(PLACE)) == pytest.approx(t + 0.5, abs=0.02)
    _, i, j = np.unravel_index(e.visual[0].argmax(), e.visual[0].shape)
    assert opened.text('#cell').startswith(f'The strongest: row {i + 1}, column {j + 1} at {t}\N{EN DASH}{t + 1} s')


def test_clicks_and_keys_seek(opened, explained):
    opened.click('#seek', x=0.625)
    seeked(opened, 2.5)
    assert float(opened.run(PLACE)) == pytest.approx(2.5, abs=0.02)
    e, _ = explained
    text = opened.run('document.querySelector("#seek").getAttribute("aria-valuetext")')
    assert text.startswith('2.5 seconds of 4; visual ') and 'for class 0' in text
    terms = [e.visual[0, 2].sum(), e.audio[0, 2]]
    numbers = [part.split()[1] for part in text.split('; ')[1].split(', ')]
    np.testing.assert_allclose([number(word) for word in numbers], terms, atol=0.006)
    opened.press('[')
    seeked(opened, 1.0)
    opened.press(']')
    seeked(opened, 2.0)
    opened.press('ArrowRight')
    seeked(opened, 2 + 1 / explained[0].media['fps'])
    opened.press('ArrowLeft')
    seeked(opened, 2.0)
    opened.click('#next')
    seeked(opened, 3.0)
    assert 'no data' in opened.text('#readout')


def test_keys_mute_and_switch_the_overlay(opened):
    opened.press('m')
    assert opened.run('document.querySelector("video").muted') is True
    opened.press('m')
    assert opened.run('document.querySelector("video").muted') is False
    overlay = 'document.querySelector("#overlay")'
    inked = f'{overlay}.getContext("2d").getImageData(0, 0, {overlay}.width, {overlay}.height).data.some((x) => x)'
    assert opened.run(inked)
    opened.press('o')
    assert not opened.run(inked) and opened.run('document.querySelector("#heat").ariaPressed') == 'false'


def opacity(driver, rows, columns):
    """Returns the opacity (0..1) of the overlay in the middle of each of rows x columns parts of the frame."""
    canvas = 'document.querySelector("#overlay")'
    pixel = f'{canvas}.getContext("2d").getImageData(x * {canvas}.width, y * {canvas}.height, 1, 1).data[3]'
    places = [[(j + 0.5) / columns, (i + 0.5) / rows] for i in range(rows) for j in range(columns)]
    found = driver.run(f'{places}.map(([x, y]) => {pixel})')
    return np.array(found).reshape(rows, columns) / 255


def test_the_overlay_shows_half_cells_or_cells_on_one_scale(chromium, tmp_path):
    e = record(t=T)
    random = np.random.default_rng(3).normal(size=(3, T, 6, 4))
    e = dataclasses.replace(e, visual_finer=half_cells.adding_up(random, e.visual).astype(np.float32))
    (tmp_path / 'e.html').write_text(page.render(e))
    chromium.open(tmp_path / 'e.html')
    chromium.click('#seek', x=0.375)
    assert strongest(e, 0) != 1 and strongest(e, 1) != 1
    expected, scale = colours.overlay(e.visual[0], e.audio[0], e.painted(0))
    assert scale == 4 * np.abs(e.visual_finer[0]).max()
    np.testing.assert_allclose(opacity(chromium, 6, 4), expected[1, ..., 3], atol=0.01)
    assert number(chromium.text('#scale-high').split()[0]) == pytest.approx(scale, rel=0.05)
    chromium.press('f')
    assert chromium.run('document.querySelector("#finer").ariaPressed') == 'false'
    of_cells = colours.OPACITY * (np.maximum(e.visual[0, 1], 0) / scale) ** colours.OPACITY_EXPONENT
    np.testing.assert_allclose(opacity(chromium, 3, 2), of_cells, atol=0.01)
    chromium.click('#finer')
    chromium.press('2')
    expected, scale = colours.overlay(e.visual[1], e.audio[1], e.painted(1))
    np.testing.assert_allclose(opacity(chromium, 6, 4), expected[1, ..., 3], atol=0.01)
    stated = chromium.text('#trust').split('with a difference of at most ')[1].split(',')[0]
    assert float(stated) < 1e-5
    # Without the visual part of another segment, the map changes by the factor of the cells and still adds up.
    chromium.click('#picture-units button:nth-child(4)')
    strength = np.clip(e.painted(1)[1] / (1 - e.beta[0, 3, 1]) / scale, 0, 1)
    expected = colours.OPACITY * strength**colours.OPACITY_EXPONENT
    np.testing.assert_allclose(opacity(chromium, 6, 4), expected, atol=0.01)
    assert [text for text in chromium.complaints() if 'readback' not in text] == []


def test_a_record_without_a_finer_map_has_no_switch(opened):
    assert opened.run('document.querySelector("#finer").hidden')
    opened.press('f')
    overlay = 'document.querySelector("#overlay")'
    assert opened.run(
        f'{overlay}.getContext("2d").getImageData(0, 0, {overlay}.width, {overlay}.height).data.some((x) => x)'
    )


def shown_sum(driver):
    cells = driver.run('Array.from(document.querySelectorAll("#sum td"), (cell) => cell.textContent)')
    return [number(cell) for cell in cells]


def test_it_switches_class_and_shows_the_contrast_with_another(opened, explained):
    e, _ = explained
    opened.press('3')
    assert opened.run('document.querySelector("#classes :checked").value') == '2'
    assert opened.text('#sentence') == e.sentence('class 2')
    reference, visual, audio = e.contributions('class 2')
    np.testing.assert_allclose(shown_sum(opened), [reference, visual.sum(), audio.sum(), e.logits[2]], atol=0.006)
    opened.click('#classes label:nth-of-type(2)')
    assert opened.text('#sentence') == e.sentence('class 1')
    opened.press('c')
    assert opened.run('document.querySelector("#other").value') == '0'
    reference, visual, audio = e.contrast('class 1', 'class 0')
    np.testing.assert_allclose(
        shown_sum(opened), [reference, visual.sum(), audio.sum(), e.logits[1] - e.logits[0]], atol=0.006
    )
    rows = opened.run(
        'Array.from(document.querySelectorAll("#table tbody tr"), (row) => Array.from(row.cells, (cell) => '
        'cell.textContent))'
    )
    for t in range(3):
        np.testing.assert_allclose([number(x) for x in rows[t][1:3]], [visual[t].sum(), audio[t]], atol=0.006)
    assert rows[3][1] == 'no data'
    assert opened.text('#more').startswith('2 classes')


def test_the_what_if_panel_shows_the_logit_that_python_computes(opened, explained):
    e, _ = explained
    opened.click('#picture-units button:nth-child(2)')
    keep = np.ones((2, T), bool)
    keep[0, 1] = False
    assert number(opened.text('#what-if-logit')) == pytest.approx(e.without_units(keep, 'class 0'), abs=0.006)
    rng = np.random.default_rng(0)
    for k in range(8):
        keep = rng.random((2, T)) < 0.5
        keep[k % 2, 0], keep[k % 2, 1] = True, False
        opened.run('document.querySelector("#reset").click()')
        opened.press(str(1 + k % 3))
        for m, t in np.argwhere(~keep[:, :3]):
            opened.run(f'document.querySelectorAll("#{("picture", "sound")[m]}-units button")[{t}].click()')
        logits = np.array([e.without_units(keep, name) for name in CLASSES])
        assert number(opened.text('#what-if-logit')) == pytest.approx(logits[k % 3], abs=0.006)
        probability = (np.exp(logits) / np.exp(logits).sum())[k % 3]
        assert opened.text('#what-if-probability') == sentences.percent(probability)
        # The bars are the contributions of what is left; they still sum to the logit.
        *parts, total = shown_sum(opened)
        assert sum(parts) == pytest.approx(total, abs=0.02)


def test_all_of_a_modality_can_be_taken_away_and_put_back(opened, explained):
    e, _ = explained
    opened.click('#all-sound')
    keep = np.array([[True] * T, [False] * T])
    assert number(opened.text('#what-if-logit')) == pytest.approx(e.without_units(keep, 'class 0'), abs=0.006)
    opened.click('#all-picture')
    assert 'no logit' in opened.text('#answer')
    opened.click('#reset')
    assert shown_sum(opened)[-1] == pytest.approx(e.logits[0], abs=0.006)


def test_one_alone_has_all_the_weight_even_where_float32_has_none(chromium, explained, tmp_path):
    beta = explained[0].beta.copy()
    beta[1, 2] = 0
    e = dataclasses.replace(explained[0], source=None, beta=beta)
    (tmp_path / 'e.html').write_text(page.render(e))
    chromium.open(tmp_path / 'e.html')
    chromium.click('#all-picture')
    for t in (1, 2):
        chromium.click(f'#sound-units button:nth-child({t})')
    keep = np.zeros((2, T), bool)
    keep[1, 2] = True
    assert number(chromium.text('#what-if-logit')) == pytest.approx(e.without_units(keep, 'class 0'), abs=0.006)


def test_removing_units_keeps_the_scale_of_heat(opened, explained):
    e, _ = explained
    end = opened.text('#scale-high')
    assert number(end.split()[0]) == pytest.approx(np.abs(e.visual[0]).max(), rel=0.05)
    opened.click('#all-sound')
    for t in range(1, 3):
        opened.click(f'#picture-units button:nth-child({t})')
    assert opened.text('#scale-high') == end


def test_any_class_is_compared_with_any_other(opened, explained):
    e, _ = explained
    opened.press('4')
    opened.run(
        '(() => { const s = document.querySelector("#other"); s.value = "7"; s.dispatchEvent(new Event("change")); })()'
    )
    reference, visual, audio = e.contrast('class 3', 'class 7')
    difference = e.logits[3] - e.logits[7]
    np.testing.assert_allclose(shown_sum(opened), [reference, visual.sum(), audio.sum(), difference], atol=0.006)
    assert opened.run('document.querySelector("#other").options[4].disabled')
    # A class is never compared with itself.
    opened.press('8')
    assert opened.run('document.querySelector("#other").value') == '0'
    opened.press('c')
    assert opened.text('#sentence') == e.sentence('class 7')


def state(driver):
    return driver.run(
        '[document.querySelector("#classes :checked").value, document.querySelector("#other").value, '
        'document.querySelector("#answer").textContent, document.querySelector("#sentence").textContent, '
        f'Number(Number({PLACE}).toFixed(1))]'
    )


def test_the_address_holds_the_state(opened, chromium):
    opened.press('3')
    opened.press('c')
    opened.click('#sound-units button:nth-child(2)')
    opened.click('#seek', x=0.1)
    seeked(opened, 0.4)
    before = state(opened)
    address = opened.run('location.href')
    assert '#class=class+2&against=class+0&without=a1&t=0.4' in address
    opened.call('Page.reload')
    opened.until('document.readyState === "complete" && document.querySelector("video")?.readyState >= 2')
    seeked(opened, 0.4)
    assert state(opened) == before
    opened.run('location.hash = "class=class+1"')
    opened.until('document.querySelector("#classes :checked").value === "1"')
    assert 'Press' in opened.text('#answer')
    opened.run('location.hash = "class=cow&without=v3-a9&t=99"')
    opened.until('document.querySelector("#done").textContent.includes("class=cow")')
    assert opened.text('#done').endswith('does not have: without=v3, without=a9, t=99, class=cow.')
    assert opened.complaints() == []


def test_the_link_is_copied(opened):
    opened.call('Browser.grantPermissions', permissions=['clipboardReadWrite', 'clipboardSanitizedWrite'])
    opened.press('2')
    opened.click('#link')
    opened.until('document.querySelector("#done").textContent === "Link copied."')
    copied = opened.run('navigator.clipboard.readText()')
    assert copied == opened.run('location.href') and '#class=class+1&t=' in copied


def saved(driver, folder, button, name):
    driver.call('Page.setDownloadBehavior', behavior='allow', downloadPath=str(folder))
    driver.click(button)
    driver.until(f'document.querySelector("#done").textContent === "Saved {name}."')
    deadline = time.monotonic() + 20
    while not (folder / name).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return folder / name


def test_the_table_is_saved_as_it_is_shown(opened, explained, tmp_path):
    e, _ = explained
    opened.press('2')
    opened.click('#picture-units button:nth-child(3)')
    with open(saved(opened, tmp_path, '#csv', 'a_class_1.csv'), newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [row['visual_kept'] for row in rows[:3]] == ['1', '1', '0'] and rows[3]['valid'] == '0'
    keep = np.ones((2, T), bool)
    keep[0, 2] = keep[:, 3] = False
    weight = e.beta[..., 1][keep].sum()
    np.testing.assert_allclose([float(row['audio']) for row in rows[:3]], e.audio[1, :3] / weight, rtol=1e-5)
    assert float(rows[2]['visual']) == 0 and {row['class'] for row in rows} == {'class 1'}


def test_the_figure_is_saved_with_frame_heat_and_bars(opened, tmp_path):
    image = np.asarray(PIL.Image.open(saved(opened, tmp_path, '#figure', 'a_class_0.png')).convert('RGB')).astype(int)
    assert image.shape[1] > 1600 and image.shape[0] > 900
    for colour in (colours.PICTURE, colours.SOUND, colours.STRONGEST):
        assert (np.abs(image - colours.rgb(colour)).max(axis=-1) < 12).sum() > 200, colour
    assert opened.complaints() == []


def test_the_question_mark_shows_the_keys(opened):
    opened.press('?')
    assert opened.run('document.querySelector("#keys").open') and 'mute' in opened.text('#keys')
    opened.press('3')
    assert opened.run('document.querySelector("#classes :checked").value') == '0'
    opened.press('?')
    assert not opened.run('document.querySelector("#keys").open')


def test_the_key_names_a_box_only_where_one_is(chromium, tmp_path):
    truth = GroundTruth((), [(2.5, 0.1, 0.1, 0.6, 0.6)])
    (tmp_path / 'e.html').write_text(page.render(record(t=T), truth=truth))
    chromium.open(tmp_path / 'e.html')
    hidden = []
    for t in range(T):
        chromium.click('#seek', x=(t + 0.5) / T)
        hidden.append(chromium.run('document.querySelector("#box-key").hidden'))
    assert hidden == [True, True, False, True]


def test_notices_follow_the_class(chromium, tmp_path):
    e = record(t=T)
    visual = e.visual.copy()
    visual[1] /= 1000
    e = dataclasses.replace(e, visual=visual, media=e.media | {'notes': ['silent']})
    (tmp_path / 'e.html').write_text(page.render(e))
    chromium.open(tmp_path / 'e.html')
    shown = 'Array.from(document.querySelectorAll("#notices li"), (line) => line.textContent)'
    assert chromium.run(shown) == e.notices('dog') and len(e.notices('dog')) == 1
    chromium.press('2')
    assert chromium.run(shown) == e.notices('cat')
    assert 'next to nothing to cat' in e.notices('cat')[1]


def test_without_scripts_the_numbers_can_be_read(chromium, explained):
    e, path = explained
    chromium.call('Emulation.setScriptExecutionDisabled', value=True)
    try:
        chromium.open(path)
        text = chromium.run('document.body.innerText')
        assert chromium.run('document.querySelector("main").offsetHeight') == 0
    finally:
        chromium.call('Emulation.setScriptExecutionDisabled', value=False)
    assert e.sentence() in text and 'need JavaScript' in text and 'Evidence for class 0' in text
    assert sentences.signed(e.audio[0, 1]) in text


def test_high_contrast_uses_the_colours_of_the_system(opened):
    features = [{'name': 'forced-colors', 'value': 'active'}]
    opened.call('Emulation.setEmulatedMedia', features=features)
    assert opened.run('matchMedia("(forced-colors: active)").matches')
    opened.click('#sound-units button:nth-child(2)')
    look = 'getComputedStyle(document.querySelector("{}")).{}'
    pressed, idle = (opened.run(look.format(f'#{name}', 'backgroundColor')) for name in ('heat', 'signed'))
    assert pressed != idle
    assert opened.run(look.format('#sound-units button:nth-child(2)', 'borderTopStyle')) == 'dashed'
    meter, ground = (opened.run(look.format(f'.meter{inner}', 'backgroundColor')) for inner in (' i', ''))
    assert meter != ground
    opened.call('Emulation.setEmulatedMedia', features=[{'name': 'forced-colors', 'value': 'none'}])


@pytest.mark.parametrize('width', [1280, 1920])
def test_the_layout_fills_the_window(opened, width):
    opened.size(width, 960)
    boxes = opened.run(
        'Array.from(document.querySelectorAll("main > *"), (e) => { const b = e.getBoundingClientRect(); '
        'return [b.left, b.top, b.right, b.bottom]; })'
    )
    left, top, right, bottom = np.array(boxes).T
    assert left.min() <= 20 and right.max() >= width - 20
    # Beside the clip, everything begins with it and is as high as it.
    beside = (top == top.min()) & (left > left.min())
    assert beside.sum() >= 2 and np.ptp(bottom[beside | (left == left.min()) & (top == top.min())]) < 2
    gaps = np.diff(np.sort(left[top == top.min()])[1:]) - (right - left)[beside][0]
    assert (np.abs(gaps) < 24).all()


def test_a_cell_shows_its_term_and_the_effect_of_its_removal(opened, explained):
    e, _ = explained
    opened.click('#seek', x=0.3)
    seeked(opened, 1.2)
    opened.run('document.querySelector("#overlay").focus()')
    for key in ('ArrowRight', 'ArrowRight', 'ArrowDown', 'ArrowDown'):
        opened.press(key)
    text = opened.text('#cell')
    assert text.startswith('Row 3, column 2 at 1\N{EN DASH}2 s')
    assert number(text.split('contributes ')[1].split(',')[0]) == pytest.approx(e.visual[0, 1, 2, 1], abs=0.006)
    assert number(text.split('class 0 by ')[1].split()[0]) == pytest.approx(e.removed_cells[0, 1, 2, 1], abs=0.006)
    opened.press('3')
    assert 'not computed for class 2' in opened.text('#cell')


def test_slides_stand_in_for_a_missing_source(chromium, tmp_path):
    e = record(t=T)
    (tmp_path / 'e.html').write_text(page.render(e))
    chromium.open(tmp_path / 'e.html')
    assert 'without sound' in chromium.text('#silent')
    shown = chromium.run('document.querySelector("#slide").src')
    assert base64.b64decode(shown.split(',')[1]) == e.frames[strongest(e, 0)]
    chromium.click('#seek', x=0.6)
    assert float(chromium.run(PLACE)) == pytest.approx(2.4, abs=0.02)
    chromium.press(' ')
    chromium.until(f'Number({PLACE}) > 2.6')
    assert chromium.complaints() == []


def test_it_works_in_the_frame_of_a_notebook(chromium, explained, tmp_path):
    (tmp_path / 'notebook.html').write_text(
        f'<!doctype html><body>{explained[0]._repr_html_()}</body>', encoding='utf-8'
    )
    chromium.open(tmp_path / 'notebook.html')
    inside = 'document.querySelector("iframe").contentDocument'
    chromium.until(f'{inside}.querySelector("video")?.readyState >= 2')
    # Without a user's mouse click, browsers play only muted videos.
    chromium.run(f'{inside}.querySelector("#mute").click(), {inside}.querySelector("#play").click()')
    chromium.until(f'{inside}.querySelector("video").currentTime > 0.2')
    assert chromium.complaints() == []


def test_a_hostile_class_name_stays_text(chromium, tmp_path):
    name = '</script><img src=x onerror="window.hit=1">'
    (tmp_path / 'e.html').write_text(page.render(record((name, 'cat', 'rain'))))
    chromium.open(tmp_path / 'e.html')
    chromium.press('c')
    assert chromium.text('#classes .label') == name
    assert chromium.run('window.hit === undefined && document.querySelectorAll("img[src=x]").length === 0')
    assert chromium.complaints() == []


@pytest.mark.parametrize('width', [1920, 1280, 390])
def test_nothing_is_wider_than_the_window_and_everything_has_a_name(chromium, explained, width):
    chromium.open(explained[1], width, 844)
    assert chromium.run('document.documentElement.scrollWidth') <= width
    nameless = chromium.run(
        'Array.from(document.querySelectorAll("button, input, [role], img"), (e) => '
        'e.getAttribute("aria-label") || e.textContent.trim() || e.closest("label")?.textContent || e.alt || '
        '(e.hidden || e.closest("[hidden]") || e.role === "status" ? "hidden" : "")).filter((name) => !name).length'
    )
    assert nameless == 0


@pytest.mark.parametrize('name', MARKERS)
def test_the_heat_lies_on_the_marker(chromium, tmp_path, name):
    """In screenshots of the frame and the overlay, the pixels that the overlay changes are those of the marker.

    The tolerance is four pixels.
    """
    box, height, width, degrees, bars, affine, cell, _ = MARKERS[name]
    source = marked(tmp_path / 'a.mp4', box, height, width, degrees, bars)
    visual = np.zeros((3, 2, 4, 4))
    visual[0, 1][cell], visual[0, 0, 0, 0] = 1, -2
    height, width = (width, height) if degrees == 90 else (height, width)
    e = record(t=2, h=4, w=4, visual=visual, source=source, affine=affine, height=height, width=width)
    (tmp_path / 'e.html').write_text(page.render(e))
    chromium.open(tmp_path / 'e.html')
    chromium.until('document.querySelector("video").readyState >= 2')
    images = {}
    for second in (0, 1):
        chromium.click('#seek', x=0.25 + 0.5 * second)
        seeked(chromium, 0.5 + second)
        chromium.until('!document.querySelector("video").seeking')
        for on in (True, False):
            left, top, wide, high = (round(x) for x in chromium.box('#stage'))
            time.sleep(0.15)
            images[second, on] = chromium.screenshot()[top : top + high, left : left + wide].astype(int)
            chromium.press('o')
    # The rulers at the border are part of the overlay; they are shorter than 9 pixels.
    changed = {s: (np.abs(images[s, True] - images[s, False]).max(axis=-1) > 40) for s in (0, 1)}
    assert not changed[0][9:-9, 9:-9].any()
    marker = extent(images[1, False].min(axis=-1) > 190)
    inside = np.zeros_like(changed[1])
    inside[marker[0] : marker[1], marker[2] : marker[3]] = True
    assert changed[1][inside].mean() > 0.9
    heat = extent(changed[1][9:-9, 9:-9]) + 9
    border = np.array([9, high - 9, 9, wide - 9])
    np.testing.assert_allclose(heat, [*np.clip(marker[:2], 9, border[1]), *np.clip(marker[2:], 9, border[3])], atol=4)
