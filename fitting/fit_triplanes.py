"""Stage 2: one triplane per subject under the frozen decoder.

Reads a multi-view set and a stage-1 run; writes a triplane folder with a quality record per
subject. Finished subjects are skipped, a killed one goes on from its last save. The subjects are
spread over processes or machines by :mod:`runtime.spread`; what is done shows in the folder alone::

    <run>/triplanes/<subject>.safetensors   written first
    <run>/quality/<subject>.json            its record; with it the subject is finished
    <run>/failures/<subject>.json           why it could not be fitted
    <run>/state/<subject>.pt                where to go on
    <run>/state/turns/                      who works on what
"""

from __future__ import annotations

from dataclasses import replace

from captures.multiview import MultiViewSet
from fitting.decoder_fit import report_quality
from fitting.triplane_config import FitTriplanesConfig, most_at_once
from fitting.triplane_fit import FitFiles, TriplaneFit, read_record
from renderer.fitted_set import FittedSet
from runtime.config import check_settings
from runtime.devices import select_device
from runtime.launch import is_main_process
from runtime.runs import RunFolder
from runtime.spread import Job, spread


def fit_triplanes(config: FitTriplanesConfig) -> None:
    """Run or resume stage 2.

    Raises:
        UserError: on inputs that no subject can be fitted with.
        PartialFailure: some subjects could not be fitted; the rest are done.
    """
    check_settings(config)
    data = MultiViewSet(config.root, config.convention)
    names = config.chosen(data.split(config.identities), data.names)
    stage1 = FittedSet.open(config.decoder)
    decoder = stage1.decoder()
    folder = RunFolder(
        config.output_dir, config, "fit-triplanes", is_main=is_main_process(), shared=True
    )
    planes, channels, size, _ = stage1.shape
    size = config.plane_size or size
    FittedSet.create(
        config.output_dir,
        decoder,
        (planes, channels, size, size),
        config.storage,
        data.identity_splits,
    )
    if config.subjects_at_once == 0:
        values = planes * channels * size * size
        at_once = most_at_once(values, select_device(config.device))
        config = replace(config, subjects_at_once=at_once)
    files = FitFiles(folder.path)
    job = Job(
        "fit-triplanes",
        TriplaneFit,
        config,
        files.finished,
        folder.state / "turns",
        folder.path / "failures",
        uses_gpu=config.device != "cpu",
    )

    def note(name: str, done: int) -> None:
        record = read_record(files.record(name))
        shown = {key: record[key] for key in ("psnr", "ssim") if key in record}
        folder.scalars(done, {"loss": record["loss"][-1], **shown})

    report = spread(job, names, config, note)
    records = {name: read_record(files.record(name)) for name in names if files.finished(name)}
    report_quality(folder, {k: v for k, v in sorted(records.items()) if "psnr" in v})
    report.raise_failures()
