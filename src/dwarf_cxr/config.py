"""Frozen settings of a run: everything that fixes its result, loaded and saved strictly."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from dwarf_cxr.errors import ConfigError
from dwarf_cxr.files import write_text

_T = TypeVar("_T", bound=BaseModel)

QueryContext = Literal["isolated", "joint"]
MapSpace = Literal["relative", "logit", "max", "probability"]
HeadKind = Literal["none", "linear", "linear-random", "conv1", "conv3", "prior"]
Projections = Literal["both", "text", "none"]
MapLayers = Literal["last", "mean"]
Attention = Literal["none", "image", "class"]
Compatibility = Literal["linear", "tanh", "dot"]
PositiveWeighting = Literal["ratio", "frequency", "paper"]
ScheduleName = Literal["cyclic", "interleaved", "joint"]
RegionSource = Literal["expert", "pseudo", "both"]
"""Whose regions: clinicians', those of `dwarf teachers`, or these where no clinician drew."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, values: Any) -> Any:
        for name, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field is not None and field.annotation is not bool:
                raise ValueError(f"{name} = {value}: yes or no is not a value of this setting")
        return values


class ModelSettings(_Frozen):
    """What the vision-language classifier is made of."""

    kind: Literal["vision-language"] = "vision-language"
    image_encoder: str = "efficientnet-lite0"
    """`efficientnet-lite0` (starter, ImageNet weights from its package), `vit-b16` (random start),
    or a folder or hub name (`org/name`) of a vision transformer in Hugging Face layout: ViT, DeiT,
    DINOv2, CLIP, SigLIP."""
    frozen_layers: int | None = Field(default=None, ge=0)
    """Encoder blocks, counted from the image, that stay as they were pretrained; None: as the
    encoder does best, 5 of the starter's 16 and none of a ViT's."""
    text_encoder: str = "minilm"
    """`minilm` (starter) or the path of a folder with a BERT in Hugging Face layout."""
    prompts: Literal["name", "description"] = "name"
    width: int = Field(default=192, gt=0)
    projections: Projections = "both"
    """Which encoder's vectors a linear layer takes to `width`; MedKLIP projects prompts only, KAD
    neither, since its encoders give vectors of `width` numbers."""
    layers: int = Field(default=2, gt=0)
    attention_heads: int = Field(default=4, gt=0)
    feedforward: int = Field(default=512, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    positions: bool = True
    """Learned position vectors on the image tokens (KAD has none)."""
    norm_inputs: bool = True
    """The decoder's LayerNorm also takes image tokens and prompts (KAD; not MedKLIP)."""
    query_context: QueryContext = "isolated"
    map_layers: MapLayers = "last"
    """Whose cross-attention is the map: the last layer's (KAD) or the mean over layers (MedKLIP).
    """
    map_space: MapSpace = "relative"
    """Where the attention lies before the head (`models/heads.py`)."""
    head: HeadKind = "linear"
    contrastive: bool = False
    """Whether the model has the learned temperature of image-text contrast (`dwarf pretrain`)."""

    @model_validator(mode="after")
    def _fits(self) -> "ModelSettings":
        if self.width % self.attention_heads:
            raise ValueError(
                f"width {self.width} is not a multiple of attention_heads {self.attention_heads}"
            )
        if self.head == "prior" and self.map_space != "relative":
            raise ValueError("head 'prior' needs map_space 'relative'")
        if self.map_space == "probability" and self.head != "none":
            raise ValueError("map_space 'probability' is unrefined attention: it needs head 'none'")
        return self


class ClassAttentionSettings(_Frozen):
    """What the network of class-based attention (Sriker et al.) and its baselines is made of."""

    kind: Literal["class-attention"] = "class-attention"
    image_encoder: str = "efficientnet-lite0"
    """A convolutional network (`models/backbones.py`): `efficientnet-lite0` (starter, ImageNet
    weights from its package), `resnet50` (random start), or a .safetensors file with ResNet-50
    weights in torchvision's or timm's layout."""
    frozen_layers: int | None = Field(default=None, ge=0)
    """Blocks, counted from the image, that stay as they were pretrained; None: 5 of the starter's
    16 and none of a ResNet's."""
    attention: Attention = "class"
    """`class`: a mask of the third stage for every finding; `image`: one for all (Jetley et al.);
    `none`: the plain network."""
    compatibility: Compatibility = "tanh"
    """How local features and the global vector are compared; `linear` is the paper to the letter,
    in which the global vector cancels."""
    width: int = Field(default=128, gt=0)
    """Channels in which they are compared; a stage with fewer keeps its own number."""
    append_global: bool = False
    """Whether the scores also see the pooled last stage."""


class HamSettings(_Frozen):
    """What HAM's network (Ouyang et al.) is made of."""

    kind: Literal["ham"] = "ham"
    image_encoder: str = "efficientnet-lite0"
    """As in `ClassAttentionSettings`."""
    frozen_layers: int | None = Field(default=None, ge=0)
    output_stride: Literal[8, 16] = 16
    """Pixels per cell of the maps, 8 in HAM; later stages are dilated instead of strided."""
    width: int = Field(default=128, gt=0)
    """Channels of the foreground attention and of the features that are pooled; 512 in HAM."""
    sharpness: float = Field(default=6.0, gt=0)
    """r of the log-sum-exp pooling."""
    dropout: float = Field(default=0.1, ge=0, lt=1)


class RetinaNetSettings(_Frozen):
    """What the detector is made of."""

    kind: Literal["retinanet"] = "retinanet"
    image_encoder: str = "efficientnet-lite0"
    """As in `ClassAttentionSettings`."""
    frozen_layers: int | None = Field(default=None, ge=0)
    width: int = Field(default=64, gt=0)
    """Channels of the feature pyramid; 256 in RetinaNet."""
    depth: int = Field(default=2, gt=0)
    """3×3 convolutions of each subnet before its output; 4 in RetinaNet."""
    anchor_size: float = Field(default=2.5, gt=0)
    """Side of a level's smallest square anchor, in cells of the level; 4 in RetinaNet. On films of
    224 px 2.5 gives sides of 20 to 127 px."""
    box_overlap: float = Field(default=0.3, ge=0, le=1)
    """Of two boxes of a finding with a larger IoU only the better stays."""
    kept_boxes: int = Field(default=10, gt=0)
    """Boxes of each finding that stay on a film, at most."""


MODEL_KINDS = ("vision-language", "class-attention", "ham", "retinanet", "report-attention")


class ReportAttentionSettings(_Frozen):
    """What the network over a detector's regions (Bhalodia et al.) is made of.

    The detector comes with `--init`. Numbers that the paper does not give are ours.
    """

    kind: Literal["report-attention"] = "report-attention"
    width: int = Field(default=100, gt=1, multiple_of=2)
    """Numbers of a word's vector, and of a region's."""
    best_regions: int = Field(default=40, gt=0)
    """Regions of a film, the detector's best."""
    worst_regions: int = Field(default=20, gt=0)
    """Regions that must not fit the report, the detector's worst."""
    roi_size: int = Field(default=3, gt=0)
    """A region's features are taken on a grid of this many cells a side."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    word_sharpness: float = Field(default=9.0, gt=0)
    """lambda_a: how much a region's attention concentrates on the nearest words."""
    region_sharpness: float = Field(default=9.0, gt=0)
    """lambda_b: how much a word's attention concentrates on the nearest regions."""
    keep_share: float = Field(default=0.3, ge=0, le=1)
    """Boxes attended less than this share of a finding's best one are dropped."""
    box_overlap: float = Field(default=0.3, ge=0, le=1)
    """IoU from which the lower scored of two boxes is dropped."""


def _kind_of(given: Any) -> str | None:
    if isinstance(given, Mapping):
        # older runs do not say their kind
        return given.get("kind", "vision-language")
    return getattr(given, "kind", None)


AnyModelSettings = Annotated[
    Annotated[ModelSettings, Tag("vision-language")]
    | Annotated[ClassAttentionSettings, Tag("class-attention")]
    | Annotated[HamSettings, Tag("ham")]
    | Annotated[RetinaNetSettings, Tag("retinanet")]
    | Annotated[ReportAttentionSettings, Tag("report-attention")],
    Discriminator(_kind_of),
]


class ObjectiveSettings(_Frozen):
    """What is minimised: seg_weight · Dice + (1 - seg_weight) · cross-entropy (paper, eq. 4).

    Each further weight adds its own term to that; with its default of 0 the term is not computed.
    """

    seg_weight: float = Field(default=0.5, ge=0, le=1)
    fp_weight: float = Field(default=2.0, ge=0)
    """w_FP of the paper's equation 3; 1 is the plain Dice."""
    dice_smooth: float = Field(default=1.0, ge=0)
    """Smoothing constant in pixels of a 224 px image."""
    map_size: int = Field(default=56, gt=0)
    """Maps and regions are compared on a grid of this many cells a side."""
    label_weight: float = Field(default=1.0, ge=0)
    """A further factor of the cross-entropy; 0 trains no score on labels (`retinanet`)."""
    positive_weighting: PositiveWeighting = "ratio"
    """What a positive weighs in the cross-entropy (`objectives/label_loss.py`)."""
    positive_weight_cap: float = Field(default=10.0, ge=1)
    """A positive weighs negatives/positives of its finding, at most this; 1 is unweighted."""
    region_cases: int | None = Field(default=None, gt=0)
    """Train the maps on the regions of this many training images per finding, and withhold those of
    the others, whose labels stay; None: on all. Which ones is drawn by the run's seed."""
    region_share: float | None = Field(default=None, gt=0, le=1)
    """The same for this share of the annotated training images, all findings of an image together.
    """
    regions: RegionSource = "expert"
    """Which regions train the maps and make the train prior. Validation, thresholds and evaluation
    always go by the experts'."""
    mining_weight: float = Field(default=0.0, ge=0)
    """alpha of GAIN (Li et al., CVPR 2018): how much a finding's score after what it attends to
    was erased counts; 1 in that paper."""
    mining_slope: float = Field(default=10.0, gt=0)
    """omega of GAIN's soft mask. The paper gives its form only; 10 and a threshold of .5 on maps
    scaled to [0, 1] are the values of the public implementation ilyak93/GAIN-pytorch."""
    mining_threshold: float = Field(default=0.5, ge=0, le=1)
    """sigma of GAIN's soft mask: the scaled attention that erases half of a pixel."""
    external_weight: float = Field(default=0.0, ge=0)
    """Weight of GAIN_ext's squared error between attention and region; 10 in that paper."""
    contrastive_weight: float = Field(default=0.0, ge=0)
    """Weight of the image-text contrast (KAD); needs `contrastive` and data with text."""
    entropy_weight: float = Field(default=0.0, ge=0)
    """lambda of Sriker et al.: how much the attention to an absent finding must be even."""
    anomaly_weight: float = Field(default=0.0, ge=0)
    """HAM's score of any finding at all; .01 in that paper, as bound and union .001, box .5."""
    bound_weight: float = Field(default=0.0, ge=0)
    """HAM: a finding's map lies inside that of the abnormality."""
    union_weight: float = Field(default=0.0, ge=0)
    """HAM: the findings' maps together cover that of the abnormality."""
    box_weight: float = Field(default=0.0, ge=0)
    """HAM: the refined map against the region."""
    detection_weight: float = Field(default=0.0, ge=0)
    """The detector's focal and box losses."""
    triplet_weight: float = Field(default=0.0, ge=0)
    """Regions against the words of reports; 1 in Bhalodia et al."""
    triplet_margin: float = Field(default=0.2, ge=0)
    """beta of that loss."""

    @property
    def supervises_maps(self) -> bool:
        """Whether regions teach where to look."""
        weights = (self.seg_weight, self.external_weight, self.box_weight, self.detection_weight)
        return any(weight > 0 for weight in weights)

    @model_validator(mode="after")
    def _one_choice_of_regions(self) -> "ObjectiveSettings":
        if self.region_cases is not None and self.region_share is not None:
            raise ValueError(
                f"region_cases = {self.region_cases} and region_share = {self.region_share}: "
                "regions are withheld by the one or the other; set one of them to null"
            )
        return self


class TrainingSettings(_Frozen):
    """How it is minimised."""

    schedule: ScheduleName = "joint"
    epochs: int = Field(default=14, gt=0)
    batch_size: int = Field(default=32, gt=0)
    accumulate: int = Field(default=1, gt=0)
    """Micro-batches per optimiser step; they share `batch_size`."""
    encoder_lr: float = Field(default=2e-4, gt=0)
    lr: float = Field(default=6e-4, gt=0)
    weight_decay: float = Field(default=0.02, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of all steps in which the rates rise linearly from zero."""
    decay: Literal["cosine", "constant"] = "cosine"
    clip: float = Field(default=1.0, gt=0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    rotate: float = Field(default=8.0, ge=0)
    """Largest rotation in degrees."""
    shift: float = Field(default=0.06, ge=0)
    """Largest translation as a share of the image's side."""
    scale: float = Field(default=0.1, ge=0, lt=1)
    """Largest relative change of size."""
    intensity: float = Field(default=0.2, ge=0, lt=1)
    """Largest relative change of contrast, and half of it of brightness."""
    flip: bool = False
    """Horizontal flips; off, since the heart is on the left and heads know positions."""
    evaluate_every: int = Field(default=1, gt=0)
    watch_test: bool = False
    """Also score the test split at every evaluation, into columns of history.csv that say `oracle`:
    for tables that show the paper's best-over-epochs beside honest numbers. Nothing is chosen by
    them. Not of `report-attention`."""
    patience: int | None = Field(default=None, gt=0)
    """Stop after this many evaluations without a better validation score; None: never."""
    stop_after_bad_steps: int = Field(default=5, gt=0)
    """Steps with a loss or gradient that is not finite are skipped; this many in a row stop."""
    compile: bool = False
    """Compile image encoder and decoder: a minute's wait or more, for little (BENCHMARKS.md)."""
    devices: int = Field(default=1, gt=0)
    """Of each machine."""
    nodes: int = Field(default=1, gt=0)
    """Machines; more than one are started by torchrun (docs/scale.md)."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"


NETWORKS_OF_TERMS: Mapping[str, tuple[str, ...]] = {
    "mining_weight": ("vision-language",),
    "external_weight": ("vision-language",),
    "contrastive_weight": ("vision-language",),
    "entropy_weight": ("vision-language", "class-attention"),
    "anomaly_weight": ("ham",),
    "bound_weight": ("ham",),
    "union_weight": ("ham",),
    "box_weight": ("ham",),
    "detection_weight": ("retinanet",),
    "triplet_weight": ("report-attention",),
}
"""Kinds of network that a term of the objective can be had from."""


class MethodSettings(_Frozen):
    """A method: model, objective and training together."""

    model: AnyModelSettings = ModelSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _terms_fit(self) -> "MethodSettings":
        for name, kinds in NETWORKS_OF_TERMS.items():
            weight = getattr(self.objective, name)
            if weight > 0 and self.model.kind not in kinds:
                raise ValueError(
                    f"{name} = {weight}: a {self.model.kind} network has no such loss; set it to 0"
                )
        return self

    @model_validator(mode="after")
    def _whole_batches(self) -> "MethodSettings":
        """HAM's losses on maps are means within a batch: of its parts they would be others."""
        names = ("bound_weight", "union_weight", "box_weight")
        used = [name for name in names if getattr(self.objective, name) > 0]
        for name in ("accumulate", "devices", "nodes") if used else ():
            number = getattr(self.training, name)
            if number > 1:
                raise ValueError(
                    f"{name} = {number} with {', '.join(used)}: these losses are means over each "
                    "finding's positives in a batch, so smaller parts of it are another objective; "
                    f"set {name} = 1, and lower batch_size if memory is short, or set these "
                    "weights to 0"
                )
        hierarchy = [*used, "anomaly_weight"] if self.objective.anomaly_weight > 0 else used
        if hierarchy and self.training.schedule != "joint":
            raise ValueError(
                f"schedule = {self.training.schedule} with {', '.join(hierarchy)}: a film is "
                "abnormal if it has any of all findings, so they are trained together; set "
                "schedule = joint, or these weights to 0"
            )
        return self

    @model_validator(mode="after")
    def _test_split_can_be_watched(self) -> "MethodSettings":
        if self.training.watch_test and isinstance(self.model, ReportAttentionSettings):
            raise ValueError(
                "watch_test = true: report-attention does not watch the test split, and has no "
                "oracle; set watch_test=false"
            )
        return self

    @model_validator(mode="after")
    def _every_finding_has_a_mask(self) -> "MethodSettings":
        weight, model = self.objective.entropy_weight, self.model
        if weight > 0 and isinstance(model, ClassAttentionSettings) and model.attention != "class":
            raise ValueError(
                f"entropy_weight = {weight} with attention {model.attention!r}: it flattens the "
                "masks of absent findings, and no finding has one of its own; set entropy_weight=0"
            )
        return self

    @model_validator(mode="after")
    def _contrast_fits(self) -> "MethodSettings":
        if self.objective.contrastive_weight == 0:
            return self
        if not (isinstance(self.model, ModelSettings) and self.model.contrastive):
            raise ValueError(
                f"contrastive_weight = {self.objective.contrastive_weight} needs contrastive = true"
            )
        if self.training.accumulate > 1:
            raise ValueError(
                f"accumulate = {self.training.accumulate} with a contrastive_weight: the films of "
                "a micro-batch are each other's negatives, so smaller ones are another objective; "
                "set accumulate = 1, and lower batch_size or use several devices if memory is short"
            )
        return self


def prompted(settings: MethodSettings) -> ModelSettings:
    """The model's settings where it is the vision-language classifier.

    Raises:
        ConfigError: another network, which knows no prompts and starts from no other model.
    """
    if not isinstance(settings.model, ModelSettings):
        raise ConfigError(
            f"a {settings.model.kind} network has no prompts and cannot start from another model; "
            "leave --init out"
        )
    return settings.model


class RunConfig(_Frozen):
    """Everything that fixes a run's result; written to RUN/config.yaml."""

    method: str
    findings: tuple[str, ...]
    data: str
    data_fingerprint: str
    init: str | None = None
    """The run or model folder that training starts from; None: pretrained encoders alone."""
    init_sha256: str | None = None
    """Of that model's weights."""
    reports: tuple[str, ...] = ()
    """Data sets whose films and texts train `report-attention`."""
    corpus: str | None = None
    """A file of further reports for the word vectors."""
    reports_sha256: str | None = None
    """Of the data sets' fingerprints and of the corpus."""
    seed: int = Field(default=0, ge=0)
    settings: MethodSettings
    versions: Mapping[str, str] = Field(default_factory=dict)


def with_overrides(
    settings: MethodSettings, file: Path | None, assignments: Sequence[str]
) -> MethodSettings:
    """`settings` changed by a YAML file and then by `key=value` assignments, checked as a whole.

    Keys are dotted (`training.epochs`); the section can be left out where the name is unique.

    Raises:
        ConfigError: unknown key, wrong value, or a contradiction; names the key and the value.
    """
    values = settings.model_dump()
    for key, value in [*_from_file(file), *map(_parse_assignment, assignments)]:
        section, name = _locate(key, type(settings.model))
        values[section][name] = value
    return _validate(MethodSettings, values, "settings")


def has_setting(settings: MethodSettings, key: str) -> bool:
    """Whether `key` names one of the settings, as `with_overrides` takes it."""
    try:
        _locate(key, type(settings.model))
    except ConfigError:
        return False
    return True


def save_config(config: RunConfig, path: Path) -> None:
    """Write `config` as YAML, atomically."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def load_config(path: Path) -> RunConfig:
    """Read RUN/config.yaml.

    Raises:
        ConfigError: missing file, unknown or missing key, wrong value.
    """
    values = _read_yaml(path)
    return _validate(RunConfig, values, str(path))


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Settings that differ, as 'key: old -> new'.

    Package versions are not settings; data and initial model are told by their hashes, not by their
    paths.
    """
    ignored = {"versions", "data", "init", "reports", "corpus"}
    before, after = (
        _flat(old.model_dump(exclude=ignored)),
        _flat(new.model_dump(exclude=ignored)),
    )
    return [
        f"{key}: {before.get(key)!r} -> {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give a run folder or a settings file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path}: not valid YAML ({fault})") from None


def _from_file(file: Path | None) -> list[tuple[str, Any]]:
    if file is None:
        return []
    values = _read_yaml(file)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{file}: expected 'key: value' lines, found {type(values).__name__}")
    return list(_flat(values).items())


def _parse_assignment(assignment: str) -> tuple[str, Any]:
    key, separator, value = assignment.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {assignment}: expected key=value, for example epochs=20")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {assignment}: {value!r} cannot be read as a value") from None


def _locate(key: str, model: type[BaseModel]) -> tuple[str, str]:
    sections: dict[str, type[BaseModel]] = {
        "model": model,
        "objective": ObjectiveSettings,
        "training": TrainingSettings,
    }
    section, separator, name = key.partition(".")
    if separator and section in sections and name in sections[section].model_fields:
        return section, name
    homes = [part for part, kind in sections.items() if key in kind.model_fields]
    if len(homes) == 1:
        return homes[0], key
    names = [
        f"{part}.{field}"
        for part, kind in sections.items()
        for field in kind.model_fields
        if field != "kind"
    ]
    raise ConfigError(f"unknown setting {key!r}; known: {', '.join(names)}")


def _validate(kind: type[_T], values: Any, where: str) -> _T:
    try:
        return kind.model_validate(values)
    except ValidationError as faults:
        lines = []
        for fault in faults.errors():
            # our own messages, without what pydantic puts before them
            said = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else fault["msg"]
            key = f"{_key_of(fault['loc'])}{_given(fault['input'])}"
            lines.append(f"{key}: {said}" if key else said)
        raise ConfigError(f"{where}: " + "; ".join(lines)) from None


def _key_of(place: Sequence[str | int]) -> str:
    # pydantic puts the kind of network between `model` and its setting
    keys = [
        str(part)
        for before, part in itertools.pairwise(("", *place))
        if not (before == "model" and part in MODEL_KINDS)
    ]
    return ".".join(keys)


def _given(value: Any) -> str:
    # settings that contradict each other are named by the message; all of them would hide it
    return "" if isinstance(value, Mapping) else f" = {value!r}"
