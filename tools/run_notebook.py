"""Runs the cells of a notebook in order, without Jupyter, and can store their outputs in it.

  python tools/run_notebook.py colab/quickstart.ipynb [--save] [PARAMETER=VALUE ...]

The cells run in the current folder. A parameter (VALUE is JSON) is set after the cell that has the tag `parameters`.
Stored outputs are the text of each cell and a small form of its last value: a picture, or its text.
"""

import ast
import base64
import contextlib
import io
import json
import pathlib
import re
import sys

MOST_BYTES = 130_000


class Output(io.StringIO):
    """The text that a cell prints, which also goes to the console at once."""

    def write(self, text: str) -> int:
        sys.__stdout__.write(text)
        return super().write(text)


def run_cell(cell: dict, space: dict) -> list[dict]:
    """Runs the code of a cell in the namespace `space` and returns its outputs in the notebook's format."""
    tree = ast.parse(''.join(cell['source']), cell['id'])
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    shown = None
    with contextlib.redirect_stdout(Output()) as printed:
        exec(compile(tree, cell['id'], 'exec'), space)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), cell['id'], 'eval'), space)
    text = printed.getvalue().splitlines(keepends=True)
    outputs = [{'name': 'stdout', 'output_type': 'stream', 'text': text}] if text else []
    if shown is not None:
        data = {'text/plain': [re.sub(' at 0x[0-9A-Fa-f]+', '', repr(shown))]}
        if hasattr(shown, '_repr_html_'):
            print('SHOWN', cell['id'], shown._repr_html_()[:30])
        elif hasattr(shown, '_repr_jpeg_'):
            picture = shown._repr_jpeg_()
            print('SHOWN', cell['id'], f'{len(picture)} bytes of JPEG')
            if len(picture) <= MOST_BYTES:
                data['image/jpeg'] = base64.b64encode(picture).decode()
        outputs.append({'data': data, 'metadata': {}, 'output_type': 'display_data'})
    return outputs


def main(path: str, *words: str) -> None:
    """Runs the notebook `path`; `words` are --save and parameters."""
    given = {name: json.loads(value) for name, _, value in (word.partition('=') for word in words if word != '--save')}
    file = pathlib.Path(path).resolve()
    content, space = json.loads(file.read_text(encoding='utf-8')), {'__name__': '__main__'}
    for cell in content['cells']:
        if cell['cell_type'] != 'code':
            continue
        cell['outputs'] = run_cell(cell, space)
        if 'parameters' in cell['metadata'].get('tags', []):
            unknown = set(given) - set(space)
            if unknown:
                sys.exit(f'error: {path} has no parameter {", ".join(sorted(unknown))}')
            space.update(given)
    if '--save' in words:
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


if __name__ == '__main__':
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
