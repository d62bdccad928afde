"""The subcommands: where each lies, and what its arguments mean."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A subcommand, by the names of its module, its dataclass and its function."""

    module: str
    config: str
    function: str
    summary: str
    first: str = ""
    """The setting that arguments without a flag mean."""
    settings: str = ""
    """Name of its file in the configurations of every scale."""

    def load(self) -> tuple[type, Callable[[Any], int | None]]:
        """Import the module; (dataclass, function)."""
        module = importlib.import_module(self.module)
        return getattr(module, self.config), getattr(module, self.function)


STAGES: dict[str, Stage] = {
    "studio render": Stage(
        "studio.sets.render_set",
        "StudioRenderConfig",
        "render_set",
        "Render a multi-view set of synthetic subjects.",
        settings="studio",
    ),
    "studio sheet": Stage(
        "studio.sets.contact_sheet",
        "StudioSheetConfig",
        "draw_sheet",
        "Draw a contact sheet of a set and histograms of its attributes.",
        first="root",
    ),
    "studio review": Stage(
        "studio.sets.review",
        "StudioReviewConfig",
        "review",
        "Draw random subjects from several sides and in several expressions, to judge them.",
    ),
    "studio diversity": Stage(
        "studio.sets.diversity",
        "StudioDiversityConfig",
        "report_diversity",
        "Measure how different a set's synthetic subjects are.",
    ),
    "studio import-meshes": Stage(
        "studio.sets.import_meshes",
        "ImportMeshesConfig",
        "import_meshes",
        "Render a multi-view set from a folder of textured meshes (GLB, OBJ).",
        first="source",
    ),
    "studio import-transforms": Stage(
        "captures.imports.transforms",
        "ImportTransformsConfig",
        "import_transforms",
        "Turn NeRF-style transforms.json folders into a multi-view set.",
        first="source",
    ),
    "studio import-colmap": Stage(
        "captures.imports.colmap",
        "ImportColmapConfig",
        "import_colmap",
        "Turn COLMAP captures (pictures, masks, sparse model) into a multi-view set.",
        first="source",
    ),
    "studio import-views": Stage(
        "captures.imports.views",
        "ImportViewsConfig",
        "import_views",
        "Check a RodinHD-layout folder and write its dataset.json.",
        first="source",
    ),
    "portrait": Stage(
        "photos.make_portraits",
        "PortraitConfig",
        "make_portraits",
        "Find the face in photographs, frame it as in a set and cut it out.",
        first="photos",
    ),
    "train-vae": Stage(
        "diffusion.training.train_vae",
        "TrainVaeConfig",
        "train_vae",
        "Train a small AutoencoderKL on a set's portraits.",
        first="root",
        settings="vae",
    ),
    "encode-features": Stage(
        "diffusion.conditioning.encode_features",
        "EncodeFeaturesConfig",
        "encode_features",
        "Store the multi-scale VAE features of portraits.",
        first="root",
        settings="features",
    ),
    "fit-decoder": Stage(
        "fitting.fit_decoder",
        "FitDecoderConfig",
        "fit_decoder",
        "Stage 1: fit the shared decoder with task replay and weight consolidation.",
        first="root",
        settings="fit_decoder",
    ),
    "fit-triplanes": Stage(
        "fitting.fit_triplanes",
        "FitTriplanesConfig",
        "fit_triplanes",
        "Stage 2: fit one triplane per object with the decoder frozen.",
        first="root",
        settings="fit_triplanes",
    ),
    "triplanes downsample": Stage(
        "renderer.triplane_sets",
        "DownsampleConfig",
        "downsample",
        "Copy a triplane set with smaller planes, or with 8 bits a value.",
        first="triplanes",
    ),
    "triplanes pack": Stage(
        "renderer.triplane_sets",
        "PackConfig",
        "pack",
        "Copy a triplane set into archives that training streams.",
        first="triplanes",
    ),
    "triplanes stats": Stage(
        "studies.triplane_stats",
        "TriplaneStatsConfig",
        "triplane_stats",
        "Range, smoothness and statistics of a triplane set; dB lost to small errors.",
        first="triplanes",
    ),
    "train-base": Stage(
        "diffusion.training.train_base",
        "TrainBaseConfig",
        "train_base",
        "Train the base triplane diffusion model.",
        first="triplanes",
        settings="base",
    ),
    "train-upsampler": Stage(
        "diffusion.training.train_upsampler",
        "TrainUpsamplerConfig",
        "train_upsampler",
        "Train the upsampling triplane diffusion model.",
        first="triplanes",
        settings="upsampler",
    ),
    "train-likeness": Stage(
        "likeness.learned.train_likeness",
        "TrainLikenessConfig",
        "train_likeness",
        "Learn what likeness needs of fitted people: a linear prior and a regression; minutes.",
    ),
    "train-rig": Stage(
        "triavatar.rig.train_rig",
        "TrainRigConfig",
        "train_rig",
        "Learn the head model that gives avatars expressions from the studio's people; minutes.",
    ),
    "sample-base": Stage(
        "diffusion.sampling.sample_base",
        "SampleBaseConfig",
        "sample_base",
        "Sample low-resolution triplanes from portrait features.",
        first="features",
        settings="sample_base",
    ),
    "sample-upsampler": Stage(
        "diffusion.sampling.sample_upsampler",
        "SampleUpsamplerConfig",
        "sample_upsampler",
        "Sample full-resolution triplanes from low-resolution ones.",
        first="features",
        settings="sample_upsampler",
    ),
    "study likeness": Stage(
        "studies.likeness",
        "StudyLikenessConfig",
        "study_likeness",
        "Compare ways of finding a stranger's avatar from one portrait, on held-out people.",
    ),
    "study expressions": Stage(
        "studies.expressions",
        "StudyExpressionsConfig",
        "study_expressions",
        "Measure faces that move: registration, and pictures against the studio's own.",
    ),
    "study conditioning": Stage(
        "studies.conditioning",
        "StudyConditioningConfig",
        "study_conditioning",
        "Train variants of the base model alike and measure each on strangers.",
    ),
    "study forgetting": Stage(
        "studies.forgetting",
        "StudyForgettingConfig",
        "study_forgetting",
        "Compare ways of fitting the decoder: what it forgets of whom, and when.",
        first="root",
        settings="study_forgetting",
    ),
    "render": Stage(
        "triavatar.render_avatar",
        "RenderConfig",
        "render",
        "Render a triplane: still views, a turntable, expressions, clips.",
        first="triplane",
        settings="render",
    ),
    "faces": Stage(
        "triavatar.faces",
        "FacesConfig",
        "faces",
        "Draw avatars from several sides and in several expressions on one sheet.",
        first="avatars",
    ),
    "view": Stage(
        "triavatar.view",
        "ViewerConfig",
        "view",
        "Look at triplanes in the browser: orbit, depth, opacity.",
        first="triplane",
    ),
    "bundle": Stage(
        "triavatar.bundles.write_bundle",
        "BundleConfig",
        "bundle",
        "Gather decoder, VAE, models and likeness into one folder that generates avatars.",
    ),
    "generate": Stage(
        "triavatar.generate",
        "GenerateConfig",
        "generate",
        "Make avatars from portraits: views, turntable, mesh, Gaussians, page, report.",
        first="portraits",
        settings="generate",
    ),
    "fit": Stage(
        "triavatar.fit.command",
        "FitConfig",
        "fit",
        "Make one avatar of several pictures, a video or a scan of one person.",
        first="pictures",
        settings="fit",
    ),
    "export": Stage(
        "triavatar.export.command",
        "ExportConfig",
        "export",
        "Write avatars as files that other programs open: meshes, rigged or not, Gaussians, pages.",
        first="avatars",
    ),
    "evaluate": Stage(
        "triavatar.evaluation.evaluate",
        "EvaluateConfig",
        "evaluate",
        "Measure triplanes against the held-out views of a multi-view set.",
        first="triplanes",
        settings="evaluate",
    ),
    "doctor": Stage(
        "captures.doctor.doctor",
        "DoctorConfig",
        "doctor",
        "Find what makes training on a multi-view set look wrong, and cure it.",
        first="root",
    ),
    "report": Stage(
        "triavatar.report",
        "ReportConfig",
        "report",
        "Draw portraits, generated and true views on one sheet; match subjects.",
        first="evaluation",
    ),
    "bench render": Stage(
        "studies.bench.bench_render",
        "BenchRenderConfig",
        "bench_render",
        "Measure rendering against the plain reference: samples/s, frames/s, memory.",
        first="triplanes",
    ),
    "bench samplers": Stage(
        "studies.bench.bench_samplers",
        "BenchSamplersConfig",
        "bench_samplers",
        "Print how much of the spread each way of sampling keeps where the answer is known.",
    ),
    "bench train": Stage(
        "studies.bench.bench_train",
        "BenchTrainConfig",
        "bench_train",
        "Measure feeding and training of the base model; model the published runs on known cards.",
        first="triplanes",
        settings="base",
    ),
    "bench train-upsampler": Stage(
        "studies.bench.bench_train",
        "BenchUpsamplerConfig",
        "bench_upsampler",
        "Measure feeding and training of the upsampler; model the published runs on known cards.",
        first="triplanes",
        settings="upsampler",
    ),
    "bench fit": Stage(
        "studies.bench.bench_fit",
        "BenchFitConfig",
        "bench_fit",
        "Measure fitting against the plain reference: steps/s, time to a PSNR.",
        first="root",
    ),
    "bench fit-many": Stage(
        "studies.bench.bench_fit_many",
        "BenchFitManyConfig",
        "bench_fit_many",
        "Measure stage 2 on a few subjects and extrapolate to many: time, disk.",
        first="root",
    ),
    "bench studio": Stage(
        "studies.bench.bench_studio",
        "BenchStudioConfig",
        "bench_studio",
        "Measure rendering one subject and extrapolate to a set: time, memory, disk.",
    ),
}
