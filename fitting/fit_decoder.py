"""Stage 1: fit the shared decoder on some subjects, with task replay and weight consolidation.

RodinHD, Algorithm 1: rounds of short visits. A visit loads one subject's triplane, fits triplane
and decoder together for a few steps, then stores the triplane and the subject's consolidation
pair. Reads a multi-view set; writes a triplane folder (:mod:`renderer.fitted_set`) whose decoder
stage 2 freezes.

Several subjects may be visited at once, in lockstep, the decoder's gradient being the mean over
them (:mod:`fitting.lockstep`); several processes share such a group between them. How many
processes there are changes where the work is done, not what is computed.
"""

from __future__ import annotations

from captures.multiview import MultiViewSet
from fitting.decoder_config import FitDecoderConfig
from fitting.decoder_fit import DecoderFit
from runtime.config import check_settings
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.launch import process_count
from runtime.processes import Processes


def fit_decoder(config: FitDecoderConfig) -> None:
    """Run or resume stage 1, alone or as one of several processes.

    Raises:
        UserError: on inputs that can't be fitted, or a number of processes that can't share them.
    """
    check_settings(config)
    if config.subjects_per_step % process_count():
        raise UserError(
            f"fit-decoder was started as {process_count()} processes, which cannot share "
            f"{config.subjects_per_step} subjects per step evenly: visits build on one another, "
            "so only subjects of one step are spread; set --subjects_per_step to a multiple of "
            "the number of processes, or start one process"
        )
    data = MultiViewSet(config.root, config.convention)
    names = config.chosen(data.split("train"), data.names)
    processes = Processes.join(select_device(config.device))
    DecoderFit(config, data, names, processes).run()
    processes.leave()
