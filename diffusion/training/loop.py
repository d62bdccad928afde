"""The loop that the VAE, the base model and the upsampler share.

Nothing drawn at random depends on how often a run was interrupted or on the number of processes:
`diffusion.data.order` says which samples a step takes, and each draws from its own
counter-based stream.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import Dataset

from diffusion.training.feeding import ahead, lay_channels_last, micro_batches
from diffusion.training.loop_config import LoopConfig, check_batch, learning_rate_at
from diffusion.training.loss_window import LossWindow, all_finite
from diffusion.training.validation import Validator, best_so_far, keep_best, out_of_patience
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import noticing_full_disk, replace_folder
from runtime.formats.tensor_files import (
    check_adam,
    check_archive,
    check_floats,
    check_kinds,
    check_like,
    load_state,
    on_cpu,
)
from runtime.launch import is_main_process, make_accelerator
from runtime.progress import progress
from runtime.runs import RunFolder


class TrainingLoop:
    """Optimises one model; owns its EMA weights, its state on disk and its log.

    Args:
        config: the stage's settings.
        stage: the stage's name, kept in the run folder.
        model: a module on the CPU.

    Attributes:
        run: the run folder.
        accelerator: accelerate's Accelerator.
        model: the prepared (maybe distributed) module, for the training forward pass.
        step: optimiser steps done.
    """

    def __init__(self, config: LoopConfig, stage: str, model: nn.Module) -> None:
        device = select_device(config.device)
        if device.type == "cuda" and device.index is not None and "LOCAL_RANK" not in os.environ:
            torch.cuda.set_device(device)
        self.config = config
        self.run = RunFolder(config.output_dir, config, stage, is_main=is_main_process())
        self.accelerator = make_accelerator(
            config.mixed_precision,
            config.trackers,
            self.run,
            config.gradient_accumulation,
            cpu=device.type == "cpu",
            config=config,
        )
        check_batch(config, self.accelerator.num_processes)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=config.adam_betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        if config.channels_last:
            lay_channels_last(model)
        if config.compile:
            model.compile()
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.ema: EMAModel | None = None
        if config.ema_decay > 0:
            self.ema = EMAModel(self._parameters(), decay=config.ema_decay, foreach=True)
            self.ema.to(self._ema_device)
        self.step = self._resume()

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def bare_model(self) -> Any:
        """The model without accelerate's wrappers."""
        return self.accelerator.unwrap_model(self.model)

    def _parameters(self) -> list[nn.Parameter]:
        return list(self.bare_model.parameters())

    @property
    def _ema_device(self) -> torch.device:
        return torch.device("cpu") if self.config.ema_on_cpu else self.device

    def _average(self) -> None:
        """Add the weights of this step to the averaged ones."""
        if self.ema is None:
            return
        parameters = self._parameters()
        if self._ema_device != self.device:
            parameters = [nn.Parameter(p.detach().cpu(), p.requires_grad) for p in parameters]
        self.ema.step(parameters)

    def _resume(self) -> int:
        self.accelerator.wait_for_everyone()
        latest = self.run.latest_state_dir()
        if latest is None:
            self.run.rewind(0)
            return 0
        step, folder = latest
        cure = f"delete {self.run.state} to start again from the first step"
        fresh = {name: value.cpu() for name, value in self.bare_model.state_dict().items()}
        # accelerate goes on without a file of random numbers that it can't read.
        for file in [*sorted(folder.glob("*.bin")), folder / "random_states_0.pkl"]:
            check = check_floats if file.name == "optimizer.bin" else check_archive
            check(file, cure)
        for file in sorted(folder.glob("model*.safetensors")):
            check_kinds(file, fresh, cure)
        try:
            self.accelerator.load_state(str(folder))
        except (MemoryError, PermissionError):
            raise
        except Exception:
            # accelerate reads several kinds of files, each of which fails in its own ways.
            raise UserError(f"the training state {folder} is damaged; {cure}") from None
        loaded = {name: value.cpu() for name, value in self.bare_model.state_dict().items()}
        check_like(loaded, fresh, folder, cure, "model")
        if self.accelerator.distributed_type == DistributedType.NO:
            check_adam(self.optimizer.optimizer.state_dict(), self.optimizer, folder, cure)
        if self.ema is not None:
            file = folder / "ema.pt"
            state = load_state(file, cure)
            fresh = on_cpu(self.ema.state_dict())
            known = {name: fresh[name] for name in ("decay", "optimization_step", "shadow_params")}
            check_like(state, known, file, cure, "ema")
            try:
                self.ema.load_state_dict(state)
            except (ValueError, TypeError, AttributeError):
                raise UserError(f"{file} is damaged (ema); {cure}") from None
            self.ema.to(self._ema_device)
        self.run.rewind(step)
        self.run.log(f"resumed at step {step}")
        return step

    def train(
        self,
        dataset: Dataset,
        collate: Callable[[list[Any]], Any],
        losses: Callable[[Any], dict[str, Tensor]],
        save_model: Callable[[Path], None],
        draw_samples: Callable[[int], None] | None = None,
        validator: Validator | None = None,
    ) -> None:
        """Runs to `config.steps`; saves, logs and draws on the way.

        Args:
            dataset: item of a position in the endless list; must depend on the position alone.
            collate: joins a micro-batch of items; the result has `.to(device)`.
            losses: per-sample losses [b] of a micro-batch; "loss" is the one descended.
            save_model: writes what inference loads into an empty folder (averaged weights are in
                place while it runs).
            draw_samples: draws pictures for a step (averaged weights likewise).
            validator: measures held-out people; the best model is kept as snapshots/best.

        Raises:
            UserError: when the loss is no longer finite (the last save is untouched).
        """
        config, accelerator = self.config, self.accelerator
        begun = time.monotonic()
        stopped = validator is not None and self._out_of_patience(validator)
        if self.step >= config.steps or stopped:
            self.run.log(f"already finished at step {self.step}")
            if not (self.run.snapshots / "model").exists():
                self._save_model(save_model)
            return
        loader = ahead(micro_batches(config, accelerator, self.step, dataset, collate), self.device)
        self.model.train()
        window, late = LossWindow(), False
        bar = progress(
            total=config.steps,
            initial=self.step,
            desc=self.run.stage,
            disable=not accelerator.is_main_process,
            unit="step",
        )
        with bar:
            while self.step < config.steps and not stopped:
                rate = learning_rate_at(config, self.step)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                self._optimise(loader, losses, window)
                self.step += 1
                bar.update()
                last = self.step == config.steps
                late = not last and self._out_of_time(begun)
                stopped = late
                save = last or late or self.step % config.save_every == 0
                if save or self.step % config.log_every == 0:
                    means = self._means(window)
                    self._report(means | {"learning_rate": rate})
                    bar.set_postfix(loss=f"{means['loss']:.4g}")
                # The state comes last: whatever a kill interrupts before it is done again.
                draw = config.sample_every and (last or self.step % config.sample_every == 0)
                if draw and draw_samples is not None:
                    self._with_average(lambda: draw_samples(self.step))
                if validator is not None and (last or self.step % validator.config.every == 0):
                    self._validate(validator, save_model)
                    stopped = late or self._out_of_patience(validator)
                if save or stopped:
                    self._save_model(save_model)
                    self._save_state()
        accelerator.end_training()
        ending = f"finished at step {self.step}: {self.run.snapshots / 'model'}"
        if late:
            ending = f"stopped at step {self.step} by the clock; the same command goes on"
        self.run.log(ending)

    def _optimise(
        self,
        loader: Iterator[Any],
        losses: Callable[[Any], dict[str, Tensor]],
        window: LossWindow,
    ) -> None:
        """One optimiser step; adds the micro-batches' mean losses to `window`."""
        for _ in range(self.config.gradient_accumulation):
            batch = next(loader)
            with self.accelerator.accumulate(self.model):
                values = losses(batch)
                self.accelerator.backward(values["loss"].mean())
                if self.accelerator.sync_gradients and self.config.clip_gradient > 0:
                    self.accelerator.clip_grad_norm_(
                        self.model.parameters(), self.config.clip_gradient
                    )
                self.optimizer.step()
                self.optimizer.zero_grad()
            window.add(values, 1 / self.config.gradient_accumulation)
        window.steps += 1
        self._average()

    def _means(self, window: LossWindow) -> dict[str, float]:
        means = window.take(self.accelerator)
        if not all_finite(means):
            raise UserError(
                f"the loss is no longer finite at step {self.step} of {self.run.path}: lower "
                f"learning_rate and start again in another folder"
            )
        return means

    def _report(self, values: dict[str, float]) -> None:
        self.run.scalars(self.step, values)
        self.accelerator.log(values, step=self.step)

    def _validate(self, validator: Validator, save_model: Callable[[Path], None]) -> None:
        """Measure held-out people on the main process; keep the model if it is the best so far.

        Losses are those of the averaged weights, and of the weights themselves beside them.
        """
        values: dict[str, float] = {}
        if self.accelerator.is_main_process and self.ema is not None:
            self.bare_model.eval()
            with torch.no_grad():
                values["validation_loss_raw"] = validator.losses()["validation_loss"]
            self.bare_model.train()

        def measure() -> None:
            values.update(validator.losses() | validator.samples())
            self._report(values)
            keep_best(self.run.snapshots / "best", values, validator.best_by, self.step, save_model)

        self._with_average(measure)

    def _out_of_time(self, begun: float) -> bool:
        """Whether `minutes` have passed since `begun`, on any process: all stop at one step."""
        if not self.config.minutes:
            return False
        late = time.monotonic() - begun >= 60 * self.config.minutes
        if self.accelerator.num_processes == 1:
            return late
        votes = torch.tensor(float(late), device=self.device)
        return bool(torch.as_tensor(self.accelerator.reduce(votes, reduction="sum")) > 0)

    def _out_of_patience(self, validator: Validator) -> bool:
        best = best_so_far(self.run.snapshots / "best")
        return out_of_patience(validator.config, best, self.step)

    def _with_average(self, action: Callable[[], None]) -> None:
        """Runs an action on the main process with the averaged weights in place."""
        if self.accelerator.is_main_process:
            parameters = self._parameters()
            if self.ema is not None:
                self.ema.store(parameters)
                self.ema.copy_to(parameters)
            self.bare_model.eval()
            try:
                with torch.no_grad():
                    action()
            finally:
                self.bare_model.train()
                if self.ema is not None:
                    self.ema.restore(parameters)
        self.accelerator.wait_for_everyone()

    def _save_model(self, save_model: Callable[[Path], None]) -> None:
        self._with_average(lambda: replace_folder(self.run.snapshots / "model", save_model))

    def _save_state(self) -> None:
        folder = self.run.new_state_dir(self.step)
        with noticing_full_disk(folder):
            self.accelerator.save_state(str(folder))
            if self.accelerator.is_main_process and self.ema is not None:
                torch.save(self.ema.state_dict(), folder / "ema.pt")
        self.accelerator.wait_for_everyone()
        self.run.commit_state_dir(folder, self.step)
        self.accelerator.wait_for_everyone()
