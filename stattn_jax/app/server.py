"""Builds the app with Gradio and starts its server: upload or record a video, watch the work, read the explanation.

Gradio is an extra (`pip install "stattn-jax[app]"`). `launch` also serves notebooks. Nothing is loaded from another
host: Gradio's analytics and its fonts from the network are off.
"""

import importlib.resources
import os
import pathlib
from collections.abc import Sequence

import gradio as gr
import numpy as np
from starlette.staticfiles import StaticFiles

from stattn_jax import run
from stattn_jax.app import gallery, markup, memory, work
from stattn_jax.app.workspace import Workspace, remove
from stattn_jax.data import video_files
from stattn_jax.explain import compare
from stattn_jax.explain.model import Model, load

_CLIPS = 24


def launch(
    *workdirs: str | os.PathLike,
    port: int | None = None,
    host: str = '127.0.0.1',
    inline: bool | None = None,
    examples: Sequence[str | os.PathLike] = (),
    galleries: Sequence[str | os.PathLike] = (),
    limits: work.Limits | None = None,
    queue: int = 20,
) -> gr.Blocks:
    """Starts the app for one run, or for two to compare, in this process and returns it; `close()` ends it.

    - workdirs: as `stattn_jax.load` takes them; port: without one, the first free one from 7860
    - inline: show the app in the output of a notebook (default: where this is a notebook)
    - examples: videos to try; galleries: folders that the explain command wrote
    - queue: the number of videos that may wait; further ones are refused

    Raises RunError for a workdir, an example or a gallery that cannot be used, and OSError for a port that is taken.
    """
    limits = limits or work.Limits()
    folders = [pathlib.Path(folder) for folder in galleries]
    pages = [gallery.find_page(folder) for folder in folders]
    models = _load([pathlib.Path(workdir) for workdir in workdirs])
    videos = _examples(models, examples)
    workspace = Workspace()
    os.environ['GRADIO_TEMP_DIR'] = str(workspace.uploads)
    gr.set_static_paths([str(video) for video in videos])
    titles = video_files.distinct_names(folders)
    shown = {titles[folder]: f'galleries/{i}/{page}' for i, (folder, page) in enumerate(zip(folders, pages))}
    blocks = _build(models, workspace, videos, shown, limits)
    blocks.queue(max_size=queue, default_concurrency_limit=1)
    app, _, _ = blocks.launch(
        server_name=host,
        server_port=port,
        inline=inline,
        height=1000,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        theme=gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace']),
        css_paths=[pathlib.Path(str(importlib.resources.files('stattn_jax.app') / 'app.css'))],
        max_file_size=int(limits.megabytes * 1e6),
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
    )
    for i, folder in enumerate(folders):
        app.mount(f'/galleries/{i}', StaticFiles(directory=folder))
    app.mount('/results', StaticFiles(directory=workspace.results))
    return blocks


def _load(workdirs: Sequence[pathlib.Path]) -> dict[str, Model]:
    """Returns the models by the names of their runs, compiled for one clip; raises RunError."""
    if not 1 <= len(workdirs) <= 2:
        raise run.RunError(f'{len(workdirs)} workdirs; expected one, or two to compare')
    names = video_files.distinct_names(workdirs, taken=(compare.PAGE, compare.RECORD))
    if len(names) < len(workdirs):
        raise run.RunError(f'{workdirs[0]} is given twice; expected one run, or two different ones')
    models = {names[workdir]: load(workdir) for workdir in workdirs}
    for model in models.values():
        # The first clip would otherwise wait for the compiler.
        frames = np.zeros((model.spec.segments, 64, 64, 3), np.uint8)
        model.explain_arrays(frames, np.zeros(round(model.spec.seconds * 16000), np.float32), finer=True)
    return models


def _examples(models: dict[str, Model], given: Sequence[str | os.PathLike]) -> list[pathlib.Path]:
    """Returns the videos to try: those given, or those in the folder of the first model; raises RunError."""
    if not given:
        return sorted(next(iter(models.values())).source.glob('example_*.mp4'))
    found = [path.resolve() for path in video_files.find(map(str, given))[0]]
    missing = [str(path) for path in found if not path.is_file()]
    if missing or not found:
        raise run.RunError(f'--example={[*missing, *given][0]}: no video file there; expected a file or a folder')
    return found


def _build(models, workspace: Workspace, examples, galleries: dict[str, str], limits: work.Limits) -> gr.Blocks:
    with gr.Blocks(title='stattn_jax', analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(markup.models_html(models), elem_id='models')
        with gr.Tab('Explain'):
            _explain_tab(models, workspace, examples, limits)
        splits = {
            f'{run}: {split}': (model, data)
            for run, model in models.items()
            for split, data in gallery.open_splits(model).items()
        }
        if galleries or splits:
            with gr.Tab('Gallery'):
                _gallery_tab(workspace, galleries, splits)
    return blocks


def _explain_tab(models, workspace: Workspace, examples, limits: work.Limits) -> None:
    ways = 'drop one, record one, or choose an example' if examples else 'drop one or record one'
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            video = gr.Video(
                sources=['upload', 'webcam'],
                include_audio=True,
                label=f'Video, at most {limits.megabytes:g} MB and {limits.minutes:g} minutes',
                elem_id='video',
            )
            button = gr.Button('Explain', variant='primary', elem_id='explain')
            whole = gr.Checkbox(True, label='Timeline of a longer video', visible=len(models) == 1, elem_id='whole')
            start = gr.Number(0, label='Start of the clip (s)', minimum=0, elem_id='start')
            if examples:
                gr.Examples([[str(path)] for path in examples], [video], label='Example clips', cache_examples=False)
        with gr.Column(scale=2, min_width=300):
            summary = gr.HTML(f'<p>There is no video yet: {ways}.</p>', elem_id='summary')
    pages = gr.HTML(elem_id='pages')

    def explain(path, start, whole, progress=gr.Progress()):  # noqa: B008  Gradio looks for this default
        if path is None:
            return markup.error_html(f'there is no video yet; {ways}'), ''
        folder, source = workspace.new(), pathlib.Path(path)
        try:
            result = work.explain(models, source, folder, limits=limits, start=start, whole=whole, report=progress)
        # Whatever kept one video from being explained must not end the app.
        except Exception as error:
            remove(folder)
            return markup.error_html(work.error_line(error, source.name)), ''
        finally:
            memory.release()
        base = f'results/{folder.name}'
        return markup.summary_html(result, folder, base), markup.pages_html(result, base)

    button.click(
        explain,
        [video, start, whole],
        [summary, pages],
        show_progress_on=[summary],
        concurrency_limit=1,
        concurrency_id='model',
        api_visibility='private',
    )


def _gallery_tab(workspace: Workspace, galleries: dict[str, str], splits) -> None:
    choices = [*galleries, *splits]
    with gr.Row():
        choice = gr.Dropdown(choices, value=choices[0], label='Clips', elem_id='gallery')
        count = gr.Number(_CLIPS, label='Number of clips of a split', minimum=1, precision=0, visible=bool(splits))
        button = gr.Button('Show', variant='primary', elem_id='show')
    page = gr.HTML(elem_id='gallery-page')
    made: dict[tuple[str, int], str] = {}

    def show(name, number, progress=gr.Progress()):  # noqa: B008  Gradio looks for this default
        if name in galleries:
            return markup.gallery_html(name, galleries[name])
        model, data = splits[name]
        number = min(number or _CLIPS, len(data))
        if (name, number) not in made:
            folder = workspace.galleries / str(len(made))
            folder.mkdir(exist_ok=True)
            gallery.explain_clips(model, data, number, folder, progress)
            memory.release()
            made[name, number] = f'results/galleries/{folder.name}/index.html'
        return markup.gallery_html(name, made[name, number])

    button.click(show, [choice, count], page, concurrency_limit=1, concurrency_id='model', api_visibility='private')
