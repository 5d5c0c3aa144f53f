"""The training loop, `train(config, directory)`, in sections: data, run record, model, restore, loop.

How a run is resumed: (1) the latest checkpoint of the workdir is restored if there is one; (2) the data continue at the
step after which it was saved, since a batch is a function of (seed, step); (3) the random numbers continue too, since
they are folded from (seed, step); (4) metrics that a killed run wrote after that step are dropped. A resumed run
therefore ends with the same parameters as an uninterrupted one. A run that is lengthened (more cfg.train.steps) does
not, because the learning rates depend on the total (run.lengthened).
"""

import contextlib
import math
import os
import pathlib

import jax
import ml_collections

from stattn_jax import assemble, config_checks, evaluate, run, trunk_setup
from stattn_jax.config_files.fields import flatten
from stattn_jax.data import pipeline, source
from stattn_jax.runtime import checkpoint, parallel, perf, summaries


def train(
    config: ml_collections.ConfigDict, directory: str | os.PathLike, *, lengthen: bool = False, wandb: str = ''
) -> dict[str, dict[str, float]]:
    """Trains until cfg.train.steps or a stop signal; returns the numbers of each evaluated split, {} when stopped.

    directory: the workdir of the run.
    lengthen: a workdir that was begun with fewer steps goes on to cfg.train.steps, with the learning rates of the new
      total (run.lengthened); otherwise it is refused.
    wandb: a project of Weights & Biases that gets the numbers too, '' for none (summaries.Writer).

    Raises RunError for a workdir or data that do not fit the config, and for a loss that is not finite.
    """
    # ------------------------------------------------------------------------------------------------------------------
    # Data
    # ------------------------------------------------------------------------------------------------------------------
    config_checks.check(config)
    data_source = source.RecordSource(config.data.dir, config.data.split)
    facts = run.DataFacts.of(data_source.info)
    trunk_setup.check(config, facts.spec)
    trunk_setup.check_augmentation(config, facts.spec)
    eval_splits = evaluate.splits_of(config, data_source.info)
    select = evaluate.selects(config, data_source.info)
    # ------------------------------------------------------------------------------------------------------------------
    # The run record
    # ------------------------------------------------------------------------------------------------------------------
    if config.compile_cache:
        perf.enable_compile_cache(config.compile_cache)
    workdir = pathlib.Path(directory)
    run.check_workdir(workdir, config, lengthen=lengthen)
    strategy = run.make_strategy(config, config.train.batch, config.eval.batch)
    run.check_micro_batches(config, strategy)
    record = run.record(config, facts, strategy)
    # ------------------------------------------------------------------------------------------------------------------
    # Model, optimiser, compiled step
    # ------------------------------------------------------------------------------------------------------------------
    graphdef, state, optimiser, schedule = run.make_state(config, facts, strategy.axis)
    binary = run.is_binary(config, facts)
    options = {'binary': binary, 'axis': strategy.axis, 'mel_log': facts.mel_log()}
    pure_step = assemble.make_step(config, graphdef, optimiser, **options)
    compiled = strategy.compile(pure_step)
    evaluator = evaluate.Evaluator(graphdef, strategy, config)
    with contextlib.ExitStack() as logs, contextlib.ExitStack() as stack:
        # --------------------------------------------------------------------------------------------------------------
        # Restore
        # --------------------------------------------------------------------------------------------------------------
        checkpointer = checkpoint.Checkpointer(
            str(workdir / run.CHECKPOINTS),
            keep=config.train.keep,
            best_metric=config.train.best_metric if select else None,
        )
        stack.callback(checkpointer.close)
        start = checkpointer.latest() or 0
        if start:
            state, saved = checkpointer.restore(start, strategy.abstract(state))
            if saved['data']['fingerprint'] != facts.fingerprint:
                raise run.RunError(
                    f'config.data.dir={config.data.dir} is not the data that {workdir} was trained on '
                    f'(fingerprint {facts.fingerprint[:12]}, was {saved["data"]["fingerprint"][:12]}); give that data '
                    'or another --workdir'
                )
            record['trunks'] = saved.get('trunks', [])
        else:
            state, record['trunks'] = trunk_setup.load(config, facts.spec, state)
        state = strategy.place_state(state)
        first_process = jax.process_index() == 0
        times, notice = run.lengthened(workdir, config, start)
        record |= {'lengthened': times} if times else {}
        if first_process:
            # These files are written last, so that after a failed start the corrected command may use another config.
            run.save_config(workdir, config)
            run.write_json(workdir / run.RUN_FILE, record)
        seen = ([config.eval.select_split] if select else []) + [summaries.EVALUATION + split for split in eval_splits]
        shown = [f'{group}/{config.train.best_metric}' for group in seen]
        fields = flatten(config.to_dict())
        writer = summaries.Writer(str(workdir), jax.process_index(), config=fields, metrics=shown, wandb=wandb)
        logs.callback(writer.close)
        writer.truncate(start)
        if first_process:
            if notice:
                print(notice, flush=True)
            size = sum(x.size for x in jax.tree.leaves(state['params']))
            print(
                f'{"resuming at" if start else "starting from"} step {start} of {config.train.steps}: '
                f'{len(data_source)} clips, '
                f'{len(facts.classes)} classes, {size / 1e6:.2f} M parameters, '
                f'{strategy.kind} on {len(strategy.devices)} x {strategy.devices[0].device_kind}',
                flush=True,
            )
        # --------------------------------------------------------------------------------------------------------------
        # Loop
        # --------------------------------------------------------------------------------------------------------------
        batches = pipeline.train_batches(
            data_source,
            global_batch=config.train.batch,
            seed=config.seed,
            start_step=start,
            local_devices=len(strategy.local_devices),
            micro_batches=config.train.accumulate,
            **run.input_options(config),
        )
        feed = stack.enter_context(
            contextlib.closing(parallel.prefetch(map(evaluate.device_part, batches), strategy.place_batch))
        )
        stack.callback(batches.close)
        stop = stack.enter_context(checkpoint.StopSignal())
        progress = summaries.Progress(config.train.steps, config.train.batch, strategy.devices)
        progress.start(start)
        pending, stopped = [], False
        if first_process and start < config.train.steps:
            print('compiling the training step (on a CPU this takes up to a minute) ...', flush=True)
        for number in range(start + 1, config.train.steps + 1):
            with jax.profiler.StepTraceAnnotation('train', step_num=number):
                state, metrics = compiled(state, next(feed))
            pending.append((number, metrics))
            last, stopped = number == config.train.steps, stop.should_stop(number)
            saving = last or stopped or number % config.train.save_every_steps == 0
            evaluating = select and not stopped and (last or number % config.train.eval_every_steps == 0)
            if number == start + 1:
                # The clock restarts here, so that compilation does not count as training time.
                jax.block_until_ready(metrics)
                if first_process:
                    print(f'compiled, and made the first step, in {progress.seconds():.0f} s', flush=True)
                progress.start(number, feed.waited)
            if not (saving or evaluating or number % config.train.log_every_steps == 0):
                continue
            scalars = _fetch(pending, checkpointer)
            scalars['train/lr'] = float(schedule(number - 1))
            # The count of the compiled step has the operations of one micro-batch (perf.lowered_flops).
            flops = compiled.flops and compiled.flops * config.train.accumulate
            scalars |= progress.measure(number, feed.waited, flops)
            writer.write(number, scalars, progress.line(number, scalars))
            pending = []
            if evaluating:
                selected, pictures = evaluator.split_with_strip(state, config.eval.select_split)
                writer.write(number, _named(config.eval.select_split, selected), pictures=pictures)
            if saving or evaluating:
                checkpointer.save(number, strategy.to_global(state), record, metrics=selected if evaluating else None)
                if evaluating:
                    evaluate.check_metric(config, selected)
                progress.start(number, feed.waited)
            if stopped:
                break
        checkpointer.wait()
        if stopped and not last:
            if first_process:
                print(
                    f'stopped after step {number}, saved in {workdir}; run the same command again to continue',
                    flush=True,
                )
            return {}
        best = checkpointer.best() if select else None
        if best is not None and best != config.train.steps:
            state = strategy.place_state(checkpointer.restore(best, strategy.abstract(state))[0])
        # The logs stay open for the numbers of the evaluation; the input and the stop signal end here.
        stack.close()
        number, results = best or config.train.steps, {}
        evaluator.write_training_distance(state, number, workdir)
        for split in eval_splits:
            results[split] = evaluator.write(state, split, number, workdir)
            writer.write(config.train.steps, _named(summaries.EVALUATION + split, results[split]))
    return results


def _named(group: str, numbers: dict[str, float]) -> dict[str, float]:
    return {f'{group}/{name}': value for name, value in numbers.items()}


def _fetch(pending, checkpointer) -> dict[str, float]:
    """Returns the mean scalars of the steps since the last log line.

    Raises RunError at the first step whose loss or norm of the parameters is not finite. The norm of the parameters is
    checked as well as the loss, because a finite loss can have a gradient that is not finite, and a state with such
    parameters must not be saved.
    """
    fetched = jax.device_get([metrics for _, metrics in pending])
    for (number, _), metrics in zip(pending, fetched):
        broken = [name for name in ('train/loss', 'train/l2_params') if not math.isfinite(metrics[name])]
        if broken:
            checkpointer.wait()
            good = checkpointer.latest()
            raise run.RunError(
                f'{broken[0]} of step {number} is {metrics[broken[0]]}; '
                + (f'the last good checkpoint is step {good}' if good else 'no checkpoint was saved before')
                + '; lower config.optim.lr or config.optim.clip_norm in a new --workdir, '
                'or continue from that checkpoint',
                code=1,
            )
    return {name: float(sum(m[name] for m in fetched) / len(fetched)) for name in fetched[0]}
