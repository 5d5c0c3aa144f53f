"""Tests of the app: its work and its folders without Gradio, and the whole app in headless Chromium where Gradio is."""

import concurrent.futures
import contextlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

import browser
import psutil
import pytest
import runs

import stattn_jax
from stattn_jax import command
from stattn_jax.app import gallery, markup, work, workspace
from stattn_jax.data import media
from stattn_jax.explain import console
from stattn_jax.pretrained import lookup

EXAMPLES = sorted(lookup.SHIPPED['demo'].glob('example_*.mp4'))
HOSTILE = '<img src=x onerror=alert(1)>.mp4'


@pytest.fixture(scope='module')
def demo(quick):
    return stattn_jax.from_pretrained('demo')


@pytest.fixture(scope='module')
def quick():
    """Compiles quickly and writes two kinds of files, so that one explanation takes about a second."""
    import jax

    jax.config.update('jax_disable_most_optimizations', True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, 'KINDS', ('json', 'html'))
        yield
    jax.config.update('jax_disable_most_optimizations', False)


# ---------------------------------------------------------------------------------------------------------------------
# The work
# ---------------------------------------------------------------------------------------------------------------------


def test_a_clip_gets_its_page_its_classes_and_its_files(demo, tmp_path):
    video = shutil.copy(EXAMPLES[0], tmp_path / 'my clip.mp4')
    out, steps = tmp_path / 'out', []
    out.mkdir()
    result = work.explain({'demo': demo}, video, out, limits=work.Limits(), report=lambda *step: steps.append(step))
    expected = demo.explain(video)
    assert result.rows[0] == ('azure bars', f'{expected.probabilities.max():.1%}')
    assert result.sentence == expected.sentence() and result.pages == {'Explanation': 'explanation.html'}
    # The copy of the video is gone, and its name is in the page, but in no path.
    assert result.files == ['explanation.html', 'explanation.json'] == sorted(os.listdir(out))
    assert '<h1>my clip.mp4</h1>' in (out / 'explanation.html').read_text()
    shares = [share for share, _ in steps]
    assert shares == sorted(shares) and shares[-1] == 1 and steps[-1][1] == 'writing files: 2 of 2 done'


def test_a_long_video_gets_its_timeline_and_a_part_of_it_none(demo, tmp_path):
    (long,) = [path for path in EXAMPLES if 'long' in path.name]
    whole, part = tmp_path / 'whole', tmp_path / 'part'
    for folder in (whole, part):
        folder.mkdir()
    steps = []
    options = {'limits': work.Limits(), 'report': lambda *step: steps.append(step)}
    result = work.explain({'demo': demo}, long, whole, **options)
    assert result.pages == {'Timeline': 'timeline.html'} and {'timeline.html', 'timeline.mp4'} <= set(result.files)
    assert len(result.rows) == 5 and result.header == ('class', 'probability', 'from', 'to')
    assert ('running the network: 5 of 5 windows') in [text for _, text in steps]
    assert [share for share, _ in steps] == sorted(share for share, _ in steps)
    result = work.explain({'demo': demo}, long, part, start=8.0, **options)
    assert result.pages == {'Explanation': 'explanation.html'}
    assert json.loads((part / 'explanation.json').read_text())['media']['start'] == 8


def test_two_runs_are_compared_on_the_same_clip(demo, tmp_path):
    result = work.explain({'one': demo, 'two': demo}, EXAMPLES[1], tmp_path, limits=work.Limits())
    assert (
        result.header == ('class', 'one', 'two', 'difference')
        and 'correlation of the attention +1.00' in result.sentence
    )
    assert all(row[1] == row[2] and row[3] == '+0.00 points' for row in result.rows)
    assert list(result.pages.values()) == ['comparison.html', 'one/explanation.html', 'two/explanation.html']
    assert all((tmp_path / path).is_file() for path in (*result.pages.values(), *result.files))


def test_videos_that_cannot_be_explained_give_one_line(demo, tmp_path):
    text = tmp_path / 'notes.mp4'
    text.write_text('no video')
    playlist = tmp_path / 'list.mp4'
    playlist.write_text('#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n')
    for video, limits, expected in (
        (text, {}, 'notes.mp4: not_a_video: '),
        (tmp_path / 'absent.mp4', {}, 'absent.mp4: missing: '),
        (playlist, {}, 'list.mp4: '),
        (EXAMPLES[0], {'megabytes': 0.01}, 'example_1.mp4: it has 0.0628 MB; expected at most 0.01 MB'),
        (EXAMPLES[0], {'minutes': 0.1}, 'example_1.mp4: it lasts 0.133 minutes; expected at most 0.1; cut it'),
    ):
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        with pytest.raises((work.Refused, media.MediaError)) as caught:
            work.explain({'demo': demo}, video, folder, limits=work.Limits(**limits))
        line = work.error_line(caught.value, video.name)
        assert line.startswith(expected) and '\n' not in line and str(tmp_path) not in line
        assert os.listdir(folder) == []


def test_an_unexpected_error_is_one_line_too():
    assert work.error_line(RuntimeError('a\nb'), 'x.mp4') == 'x.mp4: failed: RuntimeError: a b'
    assert 'No space left' in work.error_line(OSError(28, os.strerror(28), 'x'), 'x.mp4')


def test_names_never_become_markup(tmp_path):
    (tmp_path / HOSTILE).touch()
    result = work.Result(HOSTILE, [HOSTILE], ('class', HOSTILE), [(HOSTILE, HOSTILE)], {HOSTILE: HOSTILE}, [HOSTILE])
    texts = [markup.summary_html(result, tmp_path, 'r'), markup.pages_html(result, 'r'), markup.error_html(HOSTILE)]
    assert all('<img' not in text and '&lt;img' in text for text in texts)


# ---------------------------------------------------------------------------------------------------------------------
# Folders
# ---------------------------------------------------------------------------------------------------------------------


def test_old_results_and_uploads_go_and_galleries_stay():
    space = workspace.Workspace()
    old, new = space.new(), space.new()
    (old / 'page.html').touch()
    (space.uploads / 'upload').mkdir()
    for path in (old, space.uploads / 'upload', space.galleries):
        os.utime(path, (0, 0))
    space.sweep()
    assert sorted(space.results.iterdir()) == sorted([new, space.galleries]) and not any(space.uploads.iterdir())
    for _ in range(space.kept):
        space.new()
    space.sweep()
    assert len(list(space.results.iterdir())) == space.kept + 1 and space.galleries.exists()
    space.close()
    assert not space.root.exists()


def test_the_folder_of_a_gallery_needs_a_page(tmp_path):
    with pytest.raises(command.RunError, match='holds no index.html; expected a folder that stattn_jax.explain'):
        gallery.find_page(tmp_path)
    (tmp_path / 'explanation.html').touch()
    assert gallery.find_page(tmp_path) == 'explanation.html'


def test_the_clips_of_a_split_make_an_index_with_a_confusion_matrix(trained, tmp_path, monkeypatch):
    model = stattn_jax.load(trained)
    data = gallery.open_splits(model)['test']
    spoilt = type('Spoilt', (), {'split': 'test', '__len__': lambda _: len(data)})()
    monkeypatch.setattr(
        type(spoilt),
        '__getitem__',
        lambda _, i: data[i] if i != 2 else (_ for _ in ()).throw(OSError(5, 'bad')),
        raising=False,
    )
    assert gallery.explain_clips(model, spoilt, 4, tmp_path, lambda *step: None) == (3, 1)
    text = (tmp_path / 'index.html').read_text()
    counts = [int(n) for n in re.findall(r'data-predicted=".*?">(\d+)<', text)]
    assert sum(counts) == 3 and '3 clips explained, 1 video not' in text
    assert sorted(path.name for path in tmp_path.glob('clip_*')) == ['clip_0', 'clip_3', 'clip_5']


def test_a_run_without_its_data_has_no_splits(demo):
    assert gallery.open_splits(demo) == {}


# ---------------------------------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'flags, message',
    [
        ([], '--workdir is missing; expected --workdir=RUN'),
        (['--workdir=a', '--workdir=a'], '--workdir=a is given twice'),
        (['--workdir=a', '--workdir=b', '--workdir=c'], '3 --workdir flags; expected one, or two to compare'),
        (['--workdir=a', '--port=0'], 'flag --port=0'),
    ],
)
def test_wrong_use_is_one_line(flags, message, capsys):
    from stattn_jax.app import __main__ as app

    assert app.main(['app', *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_a_port_that_is_taken_is_one_line(capsys, monkeypatch):
    from stattn_jax.app import __main__ as app

    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: True)
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert app.main(['app', '--workdir=demo', f'--port={port}']) == 2
    assert f'--port={port} at 127.0.0.1 cannot be used (Address already in use)' in capsys.readouterr().err


def test_without_gradio_the_command_names_the_extra(capsys, monkeypatch):
    from stattn_jax.app import __main__ as app

    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    assert app.main(['app', '--workdir=demo']) == 2
    assert 'pip install "stattn-jax[app]"' in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# The whole app, where Gradio is installed
# ---------------------------------------------------------------------------------------------------------------------

SEARCH_FOR_OTHER_HOSTS = """
import os, socket
connect = socket.socket.connect
def guarded(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ('127.0.0.1', '::1', 'localhost'):
        with open(os.environ['STATTN_CONNECTIONS'], 'a') as file:
            print(address, file=file)
        raise OSError(101, 'Network is unreachable')
    return connect(self, address)
socket.socket.connect = guarded
"""


class Server:
    """The app in a process of its own, which notes every connection to another host."""

    def __init__(self, folder: pathlib.Path, *flags):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        self.url, self.connections = f'http://127.0.0.1:{port}/', folder / 'connections.txt'
        self.temporary = folder / 'tmp'
        self.temporary.mkdir()
        (folder / 'sitecustomize.py').write_text(SEARCH_FOR_OTHER_HOSTS)
        path = os.pathsep.join(filter(None, (str(folder), str(runs.ROOT), os.environ.get('PYTHONPATH'))))
        environment = {'PYTHONPATH': path, 'STATTN_CONNECTIONS': str(self.connections), 'TMPDIR': str(self.temporary)}
        environment |= {'JAX_PLATFORMS': 'cpu', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}
        log = folder / 'log.txt'
        with open(log, 'w') as output:
            self.process = subprocess.Popen(
                [sys.executable, '-m', 'stattn_jax.app', f'--port={port}', *map(str, flags)],
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        while 'is ready' not in log.read_text():
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.2)
        self.config = json.loads(self.get('config'))

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=600) as answer:
            return answer.read()

    def post(self, path, data, **headers):
        request = urllib.request.Request(self.url + 'gradio_api/' + path, data, headers)
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)

    def upload(self, path, name='clip.mp4'):
        """Uploads a file under a name and returns its path on the server."""
        body = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        body += path.read_bytes() + b'\r\n--x--\r\n'
        return self.post('upload', body, **{'Content-Type': 'multipart/form-data; boundary=x'})[0]

    def explain(self, path):
        """Explains an uploaded file as the page does; returns the summary and the pages, or the refusal."""
        (number,) = [x['id'] for x in self.config['dependencies'] if len(x['inputs']) == 3]
        session = uuid.uuid4().hex
        file = {'path': path, 'orig_name': 'clip.mp4', 'meta': {'_type': 'gradio.FileData'}}
        body = {'data': [file, 0, True], 'fn_index': number, 'session_hash': session}
        self.post('queue/join', json.dumps(body).encode(), **{'Content-Type': 'application/json'})
        address = f'{self.url}gradio_api/queue/data?session_hash={session}'
        with urllib.request.urlopen(address, timeout=600) as answer:
            for line in answer:
                message = json.loads(line[5:]) if line.startswith(b'data:') else {}
                if message.get('msg') == 'process_completed':
                    return message['output'].get('data') or message['output']['error']
        raise AssertionError('no answer')

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope='module')
def serve(tmp_path_factory):
    """Returns a function of flags that starts the app."""
    if importlib.util.find_spec('gradio') is None:
        pytest.skip('Gradio is not installed; install the extra app')
    with contextlib.ExitStack() as stack:

        def start(*flags):
            server = Server(tmp_path_factory.mktemp('app'), *flags)
            stack.callback(server.kill)
            return server

        yield start


@pytest.fixture(scope='module')
def server(serve):
    return serve('--workdir=demo', '--max_mb=1', '--queue=20')


@pytest.fixture
def driver(tmp_path_factory):
    # A page that holds the camera may not let go of it, so that each test has a browser of its own.
    fake = ('--use-fake-device-for-media-stream=fps=5', '--use-fake-ui-for-media-stream')
    opened = browser.Browser(tmp_path_factory.mktemp('profile'), *fake)
    yield opened
    opened.close()


SHOWN = '!!document.querySelector("#pages iframe, #summary [role=alert]")'
FRAME = 'document.querySelector("#pages iframe").contentDocument'


def open_app(driver, server, **size):
    driver.open(server.url, **size)
    driver.until('!!document.querySelector("#video input[type=file]")', 120)


def choose_file(driver, path):
    chosen = driver.call('Runtime.evaluate', expression='document.querySelector("#video input[type=file]")')
    driver.call('DOM.setFileInputFiles', files=[str(path)], objectId=chosen['result']['objectId'])


def press_explain(driver):
    """Clicks the button until the app reacts, since Gradio connects its buttons after it has drawn them.

    Every text that the summary then shows is kept in the page's `texts`.
    """
    driver.run("""(() => {
        const summary = document.querySelector("#summary");
        window.texts = [];
        new MutationObserver(() => window.texts.push(summary.innerText))
            .observe(summary, {subtree: true, childList: true, characterData: true, attributes: true});
    })()""")
    for _ in range(10):
        driver.click('#explain')
        with contextlib.suppress(TimeoutError):
            return driver.until('window.texts.length > 0', 10)
    raise TimeoutError('the app did not react to ten clicks')


def explain(driver):
    press_explain(driver)
    driver.until(SHOWN, 300)


@pytest.mark.slow
@pytest.mark.parametrize('width', [1280, 390])
def test_an_upload_is_explained_and_its_page_switches_classes(server, driver, width):
    open_app(driver, server, width=width)
    choose_file(driver, EXAMPLES[0])
    driver.until('!!document.querySelector("#video video")', 60)
    explain(driver)
    assert driver.run('window.texts.some((text) => text.includes("writing files: "))')
    driver.until(f'{FRAME}.querySelectorAll("#classes input").length === 10', 60)
    assert driver.text('#summary tbody th') == 'azure bars'
    sentence = driver.run(f'{FRAME}.querySelector("#sentence").textContent')
    assert driver.text('#summary .sentence') == sentence and sentence.startswith('azure bars')
    driver.run(f'{FRAME}.querySelectorAll("#classes input")[1].click()')
    driver.until(f'{FRAME}.querySelector("#sentence").textContent.startsWith("orange square")')
    links = driver.run('Array.from(document.querySelectorAll("#summary .files a"), (a) => a.href)')
    assert [url.rsplit('.')[-1] for url in links] == ['csv', 'html', 'json', 'mp4', 'npz', 'png', 'vtt']
    assert all(server.get(url.removeprefix(server.url)) for url in links)
    # Nothing is wider than the window, and everything came from the app itself.
    assert driver.run('document.documentElement.scrollWidth') <= width
    foreign = [url for url in driver.requests() if not url.startswith((server.url, 'data:', 'blob:'))]
    assert foreign == [] and not server.connections.exists()


@pytest.mark.slow
def test_a_bad_file_is_one_line_and_the_next_one_is_explained(server, driver, tmp_path):
    (tmp_path / 'notes.mp4').write_text('no video')
    open_app(driver, server)
    explain(driver)
    assert driver.text('#summary [role=alert]').startswith('error: there is no video yet; drop one')
    choose_file(driver, tmp_path / 'notes.mp4')
    driver.until('!!document.querySelector("#video video")', 60)
    press_explain(driver)
    driver.until('document.querySelector("#summary [role=alert]")?.textContent.startsWith("error: notes.mp4: ")', 120)
    open_app(driver, server)
    driver.click('.gallery-item')
    driver.until('!!document.querySelector("#video video")', 60)
    explain(driver)
    assert driver.run('!!document.querySelector("#pages iframe")')


@pytest.mark.slow
def test_a_recording_with_fake_devices_is_explained(server, driver):
    open_app(driver, server)
    driver.click('#video button[aria-label="Capture from camera"]')
    driver.until('document.querySelector("#video").innerText.includes("Access Webcam")')
    driver.run('Array.from(document.querySelectorAll("#video button")).find((b) => /Webcam/.test(b.innerText)).click()')
    driver.until('!!document.querySelector("#video .capture-button")', 60)
    driver.click('#video .capture-button')
    driver.until('document.querySelector("#video .capture-button").innerText.includes("Stop")')
    time.sleep(10)
    driver.click('#video .capture-button')
    driver.until('document.querySelector("#video video")?.src.endsWith(".webm")', 60)
    explain(driver)
    driver.until(f'/webm/.test({FRAME}.querySelector("h1")?.textContent)', 60)


@pytest.mark.slow
def test_limits_and_names_of_uploads(server, tmp_path):
    (tmp_path / 'large').write_bytes(bytes(1_100_000))
    with pytest.raises(urllib.error.HTTPError, match='413') as refused:
        server.upload(tmp_path / 'large')
    refused.value.close()
    path = server.upload(EXAMPLES[0], '../../../evil <b>%03d.mp4')
    assert path.startswith(str(server.temporary)) and '..' not in path
    summary, pages = server.explain(path)
    assert 'azure bars' in summary and '<iframe' in pages and 'evil' not in pages
    for outside in ('results/../../', 'results/%2e%2e/%2e%2e/etc/passwd', 'gradio_api/file=/etc/passwd'):
        with pytest.raises(urllib.error.HTTPError, match='40[34]') as refused:
            server.get(outside)
        refused.value.close()


@pytest.mark.slow
def test_ten_at_once_are_all_explained_and_memory_stays_flat(server):
    """After the first ten explanations the memory of the app grows by less than 60 MB.

    STATTN_APP_CLIPS=50 explains fifty clips instead of twenty.
    """
    count = int(os.environ.get('STATTN_APP_CLIPS', '20'))
    path = server.upload(EXAMPLES[1])
    process = psutil.Process(server.process.pid)
    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(server.explain, [path] * 10))
        assert all('orange square' in summary for summary, _ in answers) and len({pages for _, pages in answers}) == 10
        before = process.memory_info().rss
        assert all('orange square' in summary for summary, _ in threads.map(server.explain, [path] * (count - 10)))
    grown = (process.memory_info().rss - before) / 1e6
    print(f'memory after ten {before / 1e6:.0f} MB, growth until {count} {grown:.0f} MB')
    assert grown < 60
    # Old results are removed.
    (folder,) = server.temporary.glob('stattn-app-*')
    assert len(list((folder / 'results').iterdir())) <= workspace.Workspace.kept + 2


@pytest.mark.slow
def test_a_full_queue_refuses_in_one_line(serve):
    server = serve('--workdir=demo', '--queue=1')
    path = server.upload(EXAMPLES[1])
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: _tried(server, path), range(6)))
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert refused and len(refused) < 6 and all('ueue' in answer and 'full' in answer for answer in refused)
    server.end()
    assert list(server.temporary.glob('stattn-app-*')) == []


def _tried(server, path):
    try:
        return server.explain(path)
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


@pytest.mark.slow
def test_a_network_without_example_clips_offers_none(serve, driver):
    server = serve('--workdir=av_digits')
    open_app(driver, server)
    assert driver.text('#summary').strip() == 'There is no video yet: drop one or record one.'
    assert driver.run('document.querySelector(".gallery-item") === null')
    explain(driver)
    assert driver.text('#summary [role=alert]') == 'error: there is no video yet; drop one or record one'
    server.end()


@pytest.mark.slow
def test_two_runs_side_by_side_and_a_gallery_of_a_split(serve, driver, trained, tmp_path):
    server = serve(f'--workdir={trained}', '--workdir=demo', f'--example={EXAMPLES[0]}')
    open_app(driver, server)
    driver.click('.gallery-item')
    driver.until('!!document.querySelector("#video video")', 60)
    explain(driver)
    driver.until('document.querySelectorAll("#pages iframe").length === 3')
    assert driver.run('Array.from(document.querySelectorAll("#summary thead th"), (th) => th.textContent)') == [
        *('class', 'trained', 'demo', 'difference')
    ]
    driver.until(f'/Agreement of the maps/.test({FRAME}.body?.innerText)')
    driver.run('Array.from(document.querySelectorAll("[role=tab]")).find((t) => t.innerText === "Gallery").click()')
    driver.until('document.querySelector("#gallery input")?.value === "trained: test"')
    driver.click('#show')
    driver.until('!!document.querySelector("#gallery-page iframe")', 300)
    frame = 'document.querySelector("#gallery-page iframe").contentDocument'
    driver.until(f'{frame}.querySelectorAll("#cards li").length === 6')
    driver.run(f'{frame}.querySelector("#confusion button").click()')
    count = int(driver.run(f'{frame}.querySelector("#confusion button").textContent'))
    driver.until(f'{frame}.querySelectorAll("#cards li:not([hidden])").length === {count}')
    driver.run(f'{frame}.querySelector("#cards li:not([hidden]) a").click()')
    driver.until(f'{frame}.querySelectorAll("#classes input").length > 1')
    server.end()
