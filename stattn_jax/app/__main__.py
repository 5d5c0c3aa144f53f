"""`python -m stattn_jax.app --workdir=RUN`: explains videos in the browser, from files and from the webcam.

Needs the extra `app`: pip install "stattn-jax[app]". With two --workdir flags, the app explains each clip by both runs
and compares them. --workdir also takes the folder of a shared model, 'demo' or 'av_digits'. The app answers only this
machine, loads nothing from another one, and removes uploads after an hour and when it ends. Ctrl-C ends it.
Exit codes: 0 ended by Ctrl-C, 2 wrong use, 1 another failure.
"""

import importlib.util
import os
import signal
import socket
import sys
import threading

from absl import flags

from stattn_jax import command
from stattn_jax.explain import console

FLAGS = flags.FlagValues()
define = command.definers(FLAGS)
define.multi_string('workdir', None, console.WORKDIRS)
define.integer('port', None, 'Port. Default: the first free one from 7860.', 1, 65535)
define.string('host', '127.0.0.1', 'Address to listen at; with 0.0.0.0, everybody in the network can use the app.')
define.multi_string('example', [], 'A video to try, or a folder of them; may be given several times.')
define.multi_string('gallery', [], 'A folder that stattn_jax.explain wrote; may be given several times.')
define.float('max_mb', 200.0, 'Largest size of an upload, in MB.', 0.001)
define.float('max_minutes', 10.0, 'Longest video, in minutes.', 0.001)
define.integer('queue', 20, 'Number of videos that may wait; further ones are refused.', 1)


def main(argv: list[str] | None = None) -> int:
    """Serves the app until it is ended; returns the exit code."""
    return command.run(argv, __doc__, FLAGS, _main)


def _main(_: flags.FlagValues) -> int:
    workdirs = FLAGS.workdir or []
    if not workdirs:
        raise flags.Error('--workdir is missing; expected --workdir=RUN')
    console.check_workdirs(workdirs)
    if importlib.util.find_spec('gradio') is None:
        raise command.RunError('the Python package gradio is not installed, which the app needs; '
                               'install the extra: pip install "stattn-jax[app]"')  # fmt: skip
    if FLAGS.port is not None:
        _check_port(FLAGS.host, FLAGS.port)
    # Gradio reads these when it is imported; they keep it from asking other hosts.
    os.environ |= {'GRADIO_ANALYTICS_ENABLED': 'False', 'HF_HUB_OFFLINE': '1', 'HF_HUB_DISABLE_TELEMETRY': '1'}
    print('loading ...', flush=True)
    from stattn_jax.app import server, work

    blocks = server.launch(
        *workdirs,
        port=FLAGS.port,
        host=FLAGS.host,
        examples=FLAGS.example,
        galleries=FLAGS.gallery,
        limits=work.Limits(FLAGS.max_mb, FLAGS.max_minutes),
        queue=FLAGS.queue,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(f'{blocks.local_url} is ready; open it in a browser. Ctrl-C ends the app.', flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print('ended')
    finally:
        blocks.close(verbose=False)
    return 0


def _check_port(host: str, port: int) -> None:
    """Raises RunError for an address at which nothing can listen, before a network is loaded."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            raise command.RunError(
                f'--port={port} at {host} cannot be used ({error.strerror or error}); give another --port, or none'
            ) from None


if __name__ == '__main__':
    sys.exit(main())
