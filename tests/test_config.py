import pytest
import yaml
from pydantic import ValidationError

from dwarf_cxr.config import (
    HamSettings,
    MethodSettings,
    ModelSettings,
    ReportAttentionSettings,
    RunConfig,
    TrainingSettings,
    differences,
    load_config,
    prompted,
    save_config,
    with_overrides,
)
from dwarf_cxr.errors import ConfigError

DEFAULT = MethodSettings()


def run(**changes) -> RunConfig:
    values = {
        "method": "dwarf",
        "findings": ("Mass", "Effusion"),
        "data": "data",
        "data_fingerprint": "f" * 64,
        "settings": DEFAULT,
        "versions": {"torch": "2"},
    }
    return RunConfig(**{**values, **changes})


def test_assignments_go_over_the_file_and_the_file_over_the_defaults(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("training:\n  epochs: 3\n  lr: 0.5\nfp_weight: 4\n")
    changed = with_overrides(DEFAULT, file, ["epochs=7", "model.head=conv3", "epochs=8"])
    assert changed.training.epochs == 8
    assert changed.training.lr == 0.5
    assert changed.objective.fp_weight == 4
    assert changed.model.head == "conv3"
    untouched = changed.model_dump()
    for section, key in (
        ("training", "epochs"),
        ("training", "lr"),
        ("objective", "fp_weight"),
        ("model", "head"),
    ):
        untouched[section][key] = DEFAULT.model_dump()[section][key]
    assert untouched == DEFAULT.model_dump()
    assert MethodSettings() == DEFAULT


def test_a_number_in_scientific_notation_is_a_number():
    assert with_overrides(DEFAULT, None, ["lr=1e-5"]).training.lr == 1e-5


def test_none_can_be_assigned_to_an_optional_setting():
    patient = with_overrides(DEFAULT, None, ["patience=3"])
    assert patient.training.patience == 3
    assert with_overrides(patient, None, ["patience=null"]).training.patience is None


@pytest.mark.parametrize(
    "assignment",
    ["epoch=3", "training.head=none", "epochs.training=3", "model=3", "model.=3", ".epochs=3"],
)
def test_unknown_keys_are_refused_with_the_known_ones(assignment):
    with pytest.raises(ConfigError) as caught:
        with_overrides(DEFAULT, None, [assignment])
    assert repr(assignment.partition("=")[0]) in str(caught.value)
    assert "training.epochs" in str(caught.value)


def test_unknown_key_in_a_file_is_refused(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("training:\n  epohcs: 3\n")
    with pytest.raises(ConfigError, match=r"training\.epohcs"):
        with_overrides(DEFAULT, file, [])


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("epochs=many", "training.epochs", "'many'"),
        ("epochs=2.5", "training.epochs", "2.5"),
        ("epochs=0", "training.epochs", "0"),
        ("lr=-1", "training.lr", "-1"),
        ("lr=[1]", "training.lr", "[1]"),
        ("lr=.nan", "training.lr", "nan"),
        ("seg_weight=1.5", "objective.seg_weight", "1.5"),
        ("fp_weight=-2", "objective.fp_weight", "-2"),
        ("schedule=cycle", "training.schedule", "'cycle'"),
        ("query_context=both", "model.query_context", "'both'"),
        ("dropout=1", "model.dropout", "1"),
        ("flip=perhaps", "training.flip", "'perhaps'"),
        ("patience=0", "training.patience", "0"),
    ],
)
def test_wrong_values_are_refused_by_key_and_value(assignment, key, value):
    with pytest.raises(ConfigError) as caught:
        with_overrides(DEFAULT, None, [assignment])
    assert f"{key} = {value}" in str(caught.value)


@pytest.mark.parametrize(
    ("assignments", "named"),
    [
        (["width=190"], ("190", "attention_heads 4")),
        (["head=prior", "map_space=logit"], ("'prior'", "'relative'")),
        (["map_space=probability"], ("'probability'", "'none'")),
    ],
)
def test_contradictions_are_refused_naming_both_sides(assignments, named):
    with pytest.raises(ConfigError) as caught:
        with_overrides(DEFAULT, None, assignments)
    assert all(name in str(caught.value) for name in named)


def test_changes_are_judged_together_not_one_by_one():
    changed = with_overrides(DEFAULT, None, ["map_space=probability", "head=none"])
    assert (changed.model.map_space, changed.model.head) == ("probability", "none")


@pytest.mark.parametrize("assignment", ["epochs", "=3", "", "epochs={a"])
def test_what_is_no_assignment_is_refused(assignment):
    with pytest.raises(ConfigError, match="--set"):
        with_overrides(DEFAULT, None, [assignment])


@pytest.mark.parametrize("content", ["", "- 1\n- 2\n", "just words", "a: [1", "\x00"])
def test_a_settings_file_must_hold_keys_and_values(tmp_path, content):
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"settings\.yaml"):
        with_overrides(DEFAULT, file, [])


def test_a_missing_settings_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        with_overrides(DEFAULT, tmp_path / "absent.yaml", [])


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValidationError):
        DEFAULT.training.epochs = 3


def test_round_trip(tmp_path):
    changed = with_overrides(
        DEFAULT,
        None,
        ["lr=1e-5", "patience=4", "flip=true", "image_encoder=a/b c", "decay=constant"],
    )
    config = run(settings=changed, seed=3, versions={"torch": "2.13.0+cpu"})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert differences(config, load_config(tmp_path / "config.yaml")) == []


def test_settings_section_of_a_saved_run_serves_as_settings_file(tmp_path):
    changed = with_overrides(DEFAULT, None, ["epochs=3", "head=prior"])
    save_config(run(settings=changed), tmp_path / "config.yaml")
    section = yaml.safe_load((tmp_path / "config.yaml").read_text())["settings"]
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(section))
    assert with_overrides(DEFAULT, tmp_path / "settings.yaml", []) == changed


def test_loading_is_strict(tmp_path):
    save_config(run(), tmp_path / "config.yaml")
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    values["settings"]["training"]["epcohs"] = 3
    del values["data_fingerprint"]
    values["settings"]["model"]["width"] = "wide"
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "broken.yaml")
    for named in (
        "broken.yaml",
        "settings.training.epcohs",
        "data_fingerprint",
        "settings.model.width = 'wide'",
    ):
        assert named in str(caught.value)


def test_a_missing_or_empty_run_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_config(tmp_path / "config.yaml")


def test_differences_name_old_and_new_but_not_versions():
    other = run(
        seed=1,
        findings=("Effusion", "Mass"),
        settings=with_overrides(DEFAULT, None, ["epochs=99"]),
        versions={"torch": "3"},
    )
    assert differences(run(), other) == [
        "findings: ('Mass', 'Effusion') -> ('Effusion', 'Mass')",
        "seed: 0 -> 1",
        f"settings.training.epochs: {TrainingSettings().epochs} -> 99",
    ]
    assert differences(run(), run(versions={})) == []


def test_a_negative_seed_is_refused():
    with pytest.raises(ValidationError, match="seed"):
        run(seed=-1)


@pytest.mark.parametrize(
    "assignment", ["lr=.inf", "fp_weight=.inf", "weight_decay=.inf", "clip=.nan"]
)
def test_numbers_must_be_finite(assignment):
    with pytest.raises(ConfigError):
        with_overrides(DEFAULT, None, [assignment])


@pytest.mark.parametrize("assignment", ["epochs=true", "lr=true"])
def test_yes_is_not_a_number(assignment):
    with pytest.raises(ConfigError):
        with_overrides(DEFAULT, None, [assignment])


def test_model_settings_alone_are_checked_too():
    with pytest.raises(ValidationError, match="width 10"):
        ModelSettings(width=10, attention_heads=4)


def test_a_network_s_settings_are_those_of_its_kind():
    ham = MethodSettings(model=HamSettings())
    assert with_overrides(ham, None, ["sharpness=3"]).model == HamSettings(sharpness=3)
    with pytest.raises(ConfigError, match="unknown setting 'prompts'"):
        with_overrides(ham, None, ["prompts=name"])
    with pytest.raises(ConfigError, match=r"model\.width = 0"):
        with_overrides(ham, None, ["width=0"])
    with pytest.raises(ConfigError, match="other"):
        with_overrides(ham, None, ["kind=other"])


@pytest.mark.parametrize("term", ["mining_weight", "entropy_weight", "detection_weight"])
def test_a_term_that_the_network_cannot_have_is_refused(term):
    with pytest.raises(ConfigError, match=f"{term} = 1.0: a ham network"):
        with_overrides(MethodSettings(model=HamSettings()), None, [f"{term}=1"])


def test_settings_from_before_there_were_kinds_are_of_a_prompted_model(tmp_path):
    values = MethodSettings().model_dump()
    del values["model"]["kind"]
    assert MethodSettings.model_validate(values) == MethodSettings()


def test_other_networks_know_no_prompts():
    assert prompted(MethodSettings()) == ModelSettings()
    with pytest.raises(ConfigError, match="a ham network has no prompts"):
        prompted(MethodSettings(model=HamSettings()))


@pytest.mark.parametrize(
    ("settings", "assignment", "said"),
    [
        (
            MethodSettings(model=HamSettings()),
            "mining_weight=1",
            "settings: mining_weight = 1.0: a ham network has no such loss; set it to 0",
        ),
        (
            DEFAULT,
            "width=190",
            "settings: model: width 190 is not a multiple of attention_heads 4",
        ),
        (
            MethodSettings(model=ReportAttentionSettings()),
            "watch_test=true",
            "settings: watch_test = true: report-attention does not watch the test split, and has "
            "no oracle; set watch_test=false",
        ),
        (DEFAULT, "epochs=0", "settings: training.epochs = 0: Input should be greater than 0"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_nothing_else(settings, assignment, said):
    with pytest.raises(ConfigError) as caught:
        with_overrides(settings, None, [assignment])
    assert str(caught.value) == said
