"""Guards the cost of a training step by counts that do not depend on the machine.

The counts are collectives, products, bytes, compilations and transfers. A count that changes is a change of speed: find
its reason before writing the new count down.
"""

import math
import re

import jax
import pytest
import runs
from tiny import quick_compile  # noqa: F401  autouse

from configs import synthetic
from stattn_jax import train
from stattn_jax.benchmark import flops, hlo, model
from stattn_jax.runtime import parallel, summaries

CLIPS, SEGMENTS, DEVICES = 8, 3, 4
COMPILED = '/jax/core/compile/backend_compile_duration'


@pytest.fixture(scope='module', params=['jit', 'pmap'])
def step(request):
    """A compiled training step of the demo's network at toy size on four devices, with all parts of the loss."""
    config = synthetic.get_config()
    config.model.update({'width': 16, 'hidden': 8, 'frame_size': 16})
    config.data.frame_size = 16
    strategy = parallel.make_strategy(request.param, jax.devices()[:DEVICES])
    case = model.Case('train', request.param, 'float32', CLIPS)
    return model.build(config, model.Data(5, SEGMENTS, (96, 64)), case, strategy)


def sizes(text, collective):
    """Number of elements in each collective's result, sorted."""
    found = []
    for line in text.splitlines():
        if match := re.search(rf' = (.*?) {collective}(-start)?\(', line):
            shapes = re.findall(r'\[([\d,]*)\]', match[1])
            found.append(sum(math.prod(map(int, filter(None, shape.split(',')))) for shape in shapes))
    return sorted(found)


def test_the_gradient_is_reduced_once_and_activations_stay_where_they_are(step):
    text, state = step.compiled.program.as_text(), step.shapes[0]
    parameters = sum(x.size for x in jax.tree.leaves(state['params']))
    *statistics, gradient = sizes(text, 'all-reduce')
    # The scalars of the loss are reduced with the gradient, and the mean scores [m c] may be joined to it.
    assert parameters < gradient < parameters + 50
    # Batch normalisation: mean and variance forward, and back, of at most 96 channels, two layers at a time.
    layers = sum('mean' in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state['rest']))
    assert max(statistics) <= 2 * 96 and len(statistics) <= 4 * layers
    assert set(hlo.totals(text)) == {'all-reduce', 'collective-permute'}
    # From other clips, one and two rows further on: audio forward and back, where it is present, labels, and whether a
    # clip has both modalities.
    assert sum(sizes(text, 'collective-permute')) == (1 + 2) * (2 * SEGMENTS * 16 + SEGMENTS + 5 + 1)


def test_the_state_is_updated_in_place(step):
    state = step.shapes[0]
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert step.compiled.program.memory_analysis().alias_size_in_bytes >= size


def test_products_and_bytes_of_a_step(step):
    assert flops.count(step.counted, *step.shapes) == 386_107_216
    costs, memory = step.compiled.program.cost_analysis(), step.compiled.program.memory_analysis()
    # jax 0.10.2; another version may plan a little differently.
    assert costs['bytes accessed'] < 1.1 * 103.6e6 and memory.temp_size_in_bytes < 1.1 * 2.2e6


def test_a_run_compiles_nothing_after_its_first_evaluation_and_a_step_asks_the_host_for_nothing(
    tiny_data, tmp_path, monkeypatch
):
    events, fetched = [], []

    def listen(name, _, **about):
        if name == COMPILED:
            events.append(about['fun_name'])

    write = summaries.Writer.write

    def written(writer, step, scalars, *console, **pictures):
        # The evaluation at the end compiles the shortcut checks.
        if not any(name.startswith(summaries.EVALUATION) for name in scalars):
            events.append(step)
        write(writer, step, scalars, *console, **pictures)

    monkeypatch.setattr(summaries.Writer, 'write', written)
    monkeypatch.setattr(train, '_fetch', lambda *args, fetch=train._fetch: (fetched.append(1), fetch(*args))[1])
    # State and batch are on the devices, so a step transfers nothing, not even explicitly.
    monkeypatch.setattr(
        jax.profiler, 'StepTraceAnnotation',
        lambda *_, step_num: jax.transfer_guard('allow' if step_num == 1 else 'disallow_explicit'),
    )  # fmt: skip
    flags = runs.make_flags(tmp_path, tiny_data, train__steps=12, train__log_every_steps=3, train__eval_every_steps=4)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        assert runs.run_main(*flags) == 0
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    steps = [event for event in events if isinstance(event, int)]
    assert steps == [2, 3, 4, 4, 6, 8, 8, 9, 10, 12, 12] and len(fetched) == len(set(steps))
    # An epoch has two steps; evaluations follow steps 4, 8 and 12, and every second step is saved.
    assert events.count('jit(train_step)') == 1 and 'jit(train_step)' in events[: events.index(2)]
    assert events[events.index(6) : len(events) - events[::-1].index(12)] == [6, 8, 8, 9, 10, 12, 12]


@pytest.mark.slow
def test_a_second_start_and_another_seed_find_their_programs(tiny_data, tmp_path):
    events = []
    jax.monitoring.register_event_listener(listen := lambda name, **_: events.append(name.rsplit('/', 1)[1]))
    found = []
    try:
        for name, seed in (('first', 0), ('second', 0), ('other', 1)):
            flags = runs.make_flags(tmp_path / name, tiny_data, train__steps=2, compile_cache=tmp_path / 'compiled')
            events.clear()
            assert runs.run_main(*flags, f'--config.seed={seed}') == 0
            found.append((events.count('cache_hits'), events.count('cache_misses')))
    finally:
        jax.monitoring.unregister_event_listener(listen)
        jax.config.update('jax_compilation_cache_dir', None)
    ((_, programs), *later) = found
    assert programs > 0 and all(hits > 0 and misses == 0 for hits, misses in later)
