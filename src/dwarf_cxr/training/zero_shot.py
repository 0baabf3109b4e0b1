"""A zero-shot run: no training, only questions, thresholds and a prior from the data."""

from pathlib import Path

from dwarf_cxr.config import ModelSettings, RunConfig, prompted, save_config
from dwarf_cxr.data.store import PreparedData
from dwarf_cxr.errors import ConfigError
from dwarf_cxr.evaluation.zero_shot import calibrated
from dwarf_cxr.files import exclusive
from dwarf_cxr.methods import clip
from dwarf_cxr.models.checkpoint import load_model
from dwarf_cxr.models.clip import ClipClassifier
from dwarf_cxr.models.outputs import ZeroShotClassifier
from dwarf_cxr.models.vlm import VisionLanguageClassifier
from dwarf_cxr.progress import Report


def write_zero_shot_run(config: RunConfig, out: Path, *, report: Report) -> None:
    """Write the run of a zero-shot method: its model asks the data's findings.

    Raises:
        ConfigError: no initial model, or a run lies there already.
        CheckpointError: the model wants images of another size.
        DataError: it was trained on patients or films of the validation or test split.
    """
    if config.init is None:
        raise ConfigError(
            f"{config.method} is zero-shot: give its weights with --init FOLDER, such as one that "
            "`dwarf weights import` wrote"
        )
    if (out / "model").exists() or (out / "dataset.json").exists():
        raise ConfigError(f"{out}: a run or data set is there already; choose another folder")
    data = PreparedData.open(Path(config.data)).restrict(config.findings)
    model = load_model(Path(config.init))
    settings = prompted(config.settings)
    if isinstance(model, ClipClassifier) != (config.method == clip.METHOD.name):
        raise ConfigError(
            f"--init {config.init}: {config.method} cannot ask a {type(model).__name__}; `clip` "
            "asks what `dwarf weights import clip` wrote, the other zero-shot methods all else"
        )
    if isinstance(model, ClipClassifier):
        _refuse_settings_of_others(settings)
    if isinstance(model, VisionLanguageClassifier):
        model = model.asked_by(settings)
    if not isinstance(model, ZeroShotClassifier):
        raise ConfigError(
            f"--init {config.init}: a {type(model).__name__} knows its own findings only, "
            f"{config.method} asks in words"
        )
    with exclusive(out):
        asked: ZeroShotClassifier = calibrated(
            model,
            data,
            method=config.method,
            descriptions=settings.prompts == "description",
            report=report,
        )
        save_config(config, out / "config.yaml")
        asked.save_pretrained(out / "model")


def _refuse_settings_of_others(settings: ModelSettings) -> None:
    given, own = (
        one.model_dump(exclude={"prompts"}) for one in (settings, clip.METHOD.settings.model)
    )
    changed = [name for name, value in given.items() if value != own[name]]
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: not a setting of `clip`, which takes the imported model as it "
            "is; only prompts=name or prompts=description can be set"
        )
