"""Which output of the model a class of the data set is."""

import json

import pytest

from ztp_search.data.class_map import (
    LabelMap,
    imagenet_wnids,
    load_class_map,
    map_classes,
    output_names,
)
from ztp_search.errors import DataError


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_wnids_map_to_their_imagenet_outputs():
    # tench, goldfish and toilet tissue: the first, the second and the last class of ImageNet-1k.
    assert map_classes(["n15075141", "n01440764", "n01443537"], 1000).outputs == (999, 0, 1)


def test_imagenet_has_a_thousand_wnids_in_ascending_order():
    wnids = imagenet_wnids(1000)
    assert len(wnids) == 1000
    assert list(wnids) == sorted(wnids) and list(wnids.values()) == list(range(1000))


def test_a_wnid_outside_imagenet_is_refused_by_name():
    with pytest.raises(DataError, match="'n99999999'.*is not in ImageNet's 1000 classes"):
        map_classes(["n01440764", "n99999999"], 1000)


def test_wnids_of_a_model_with_its_own_classes_keep_their_order():
    assert map_classes(["n01443537", "n01440764"], 2) == LabelMap()


def test_as_many_names_as_outputs_keep_their_numbers():
    assert map_classes(["cat", "dog"], 2) == LabelMap()


def test_classes_without_names_keep_their_numbers():
    assert map_classes(None, 10) == LabelMap()


def test_fewer_classes_than_outputs_have_no_labels_and_the_reason_says_so():
    labels = map_classes(["cat", "dog"], 10)
    assert labels.outputs is None
    assert "2 classes (cat, dog) and the model 10" in labels.unlabelled
    assert "`class_map` file" in labels.unlabelled


def test_more_classes_than_outputs_are_refused():
    with pytest.raises(DataError, match=r"labels must lie in 0\.\.1, but the data set has 3"):
        map_classes(["cat", "dog", "eel"], 2)


def test_a_text_map_numbers_its_lines_as_timm_does(tmp_path):
    from timm.data.readers.class_map import load_class_map as timm_load_class_map

    file = write(tmp_path / "map.txt", "dog\ngolden retriever\n cat \n")
    assert load_class_map(file) == {"dog": 0, "golden retriever": 1, "cat": 2}
    assert load_class_map(file) == timm_load_class_map(file)


def test_a_json_map_is_an_object_or_a_list(tmp_path):
    file = write(tmp_path / "a.json", '{"cat": 7, "dog": 3}')
    assert load_class_map(file) == {"cat": 7, "dog": 3}
    assert load_class_map(write(tmp_path / "b.json", '["cat", "dog"]')) == {"cat": 0, "dog": 1}


def test_the_class_map_wins_over_wnids(tmp_path):
    file = write(tmp_path / "map.json", '{"n01440764": 5}')
    assert map_classes(["n01440764"], 1000, file).outputs == (5,)


def test_two_classes_may_share_an_output(tmp_path):
    file = write(tmp_path / "map.json", '{"tabby": 1, "siamese": 1}')
    assert map_classes(["siamese", "tabby"], 2, file).outputs == (1, 1)


def test_a_class_that_the_map_lacks_is_refused_by_name(tmp_path):
    file = write(tmp_path / "map.txt", "cat\n")
    with pytest.raises(DataError, match="class 'dog' .and 1 more. is not in the class map"):
        map_classes(["cat", "dog", "eel"], 10, file)


def test_an_output_that_the_model_lacks_is_refused_by_name(tmp_path):
    file = write(tmp_path / "map.json", '{"cat": 10}')
    with pytest.raises(DataError, match=r"0\.\.9, but class 'cat' maps to 10"):
        map_classes(["cat"], 10, file)


def test_classes_without_names_are_mapped_by_number(tmp_path):
    file = write(tmp_path / "map.json", json.dumps({"0": 4, "1": 2}))
    assert map_classes(None, 10, file).outputs == (4, 2)


def test_a_map_by_name_does_not_fit_classes_without_names(tmp_path):
    file = write(tmp_path / "map.txt", "cat\ndog\n")
    with pytest.raises(DataError, match="numbers its classes without naming them.*has cat, dog"):
        map_classes(None, 10, file)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("map.pkl", "", r"must be a \.txt or \.json file"),
        ("map.json", "{", "is not valid JSON"),
        ("map.json", '{"cat": "0"}', "must be an object of name: output, or a list of names"),
        ("map.json", '{"cat": true}', "must be an object of name: output, or a list of names"),
        ("map.json", "[1, 2]", "must be an object of name: output, or a list of names"),
        ("map.json", "{}", "names no class"),
        ("map.txt", "\n", "names no class"),
        ("map.txt", "cat\ndog\ncat\n", "has 'cat' twice"),
    ],
)
def test_a_malformed_map_is_refused(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        load_class_map(write(tmp_path / name, text))


def test_a_map_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match="none.txt cannot be read: No such file"):
        load_class_map(str(tmp_path / "none.txt"))


def test_errors_are_one_line(tmp_path):
    file = write(tmp_path / "map.txt", "cat\n")
    with pytest.raises(DataError) as caught:
        map_classes(["cat", "dog"], 10, file)
    assert "\n" not in str(caught.value)


def test_outputs_are_named_by_the_class_map_else_by_imagenet_else_not_at_all(tmp_path):
    path = write(tmp_path / "classes.json", '{"cat": 1, "dog": 0, "hound": 0}')
    assert output_names(2, path) == {0: "dog", 1: "cat"}
    assert output_names(2) == {}
    names = output_names(1000)
    assert (len(names), names[0], names[285]) == (1000, "tench", "Egyptian cat")
