"""csv files: what is inferred, how columns are encoded, and what is said of what cannot be learned from."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from nas_core.errors import NotFoundError, UsageError
from training.data import load
from training.data.cells import read
from training.data.split import Split
from training.data.table_source import TableSource
from training.infer import tables as samples
from training.inputs.tables import CategoryColumn, NumberColumn, TableInputs

Write = Callable[..., str]

COLOURS = ("red", "green", "blue")


def people(count: int = 100) -> list[list[str]]:
    """Age with some missing, colour, pay, a class of two."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        age = "" if number % 10 == 3 else str(20 + number % 40)
        label = "yes" if number % 3 else "no"
        rows.append([age, COLOURS[number % 3], f"{rng.normal(100, 15):.2f}", label])
    return rows


def text_of(rows: Sequence[Sequence[str]], header: str = "age,colour,pay,buys", gap: str = ",") -> str:
    return "\n".join([*([header] if header else []), *(gap.join(row) for row in rows)]) + "\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "t.csv") -> str:
        Path(name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return name

    return write


def table(reference: str, split: Split | None = None) -> TableSource:
    source = load(reference, split or Split())
    assert isinstance(source, TableSource)
    return source


# What is read


def test_types_are_inferred_and_fitted_on_the_training_part_alone(write: Write) -> None:
    rows = people()
    write(text_of(rows))
    source = table("csv:t.csv?target=buys")
    assert source.reference == "csv:t.csv?target=buys"
    age, colour, pay = source.inputs.columns
    assert isinstance(age, NumberColumn)
    assert isinstance(colour, CategoryColumn)
    assert isinstance(pay, NumberColumn)
    train = [rows[row] for row in source.parts.train]
    ages = np.array([float(row[0]) for row in train if row[0]])
    assert (age.median, age.indicator) == (np.median(ages), True)
    filled = np.array([float(row[0] or age.median) for row in train])
    assert (age.mean, age.deviation) == pytest.approx((filled.mean(), filled.std()))
    assert (pay.indicator, pay.deviation) == (False, pytest.approx(np.std([float(row[2]) for row in train])))
    assert (colour.levels, colour.rare) == (("blue", "green", "red"), False)
    assert source.inputs.classes == ("no", "yes")
    assert source.task.table() == (1, 1, 3, 1)
    assert source.task.outputs == 2
    assert source.targets.tolist() == [int(row[3] == "yes") for row in rows]
    assert source.features[:, 0].tolist() == pytest.approx(
        [(float(row[0] or age.median) - age.mean) / age.deviation for row in rows], abs=1e-6
    )
    assert source.features[:, 1].tolist() == [float(not row[0]) for row in rows]
    assert source.features[:, 2:5].tolist() == [
        [float(row[1] == level) for level in ("blue", "green", "red")] for row in rows
    ]
    shares = [source.targets[part].mean() for _, part in source.parts.items()]
    assert max(shares) - min(shares) < 0.06
    assert source.warnings == ()


def test_the_rows_are_those_of_scikit_learn(write: Write) -> None:
    """The plain data say what a pipeline of transformers, fitted on the training part, computes."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rows = people(3000)
    for number, row in enumerate(rows):
        row[1] = "" if number % 50 == 7 else f"rare{number % 9}" if number % 30 == 11 else row[1]
        row[1] = f"seldom{number}" if number in (2, 40, 900) else row[1]
    write(text_of(rows))
    source = table("csv:t.csv?target=buys")
    numbers = np.array([[float(row[0] or "nan"), float(row[2])] for row in rows])
    train = source.parts.train
    filled = SimpleImputer(strategy="median").fit(numbers[train])
    scaled = make_pipeline(filled, StandardScaler().fit(filled.transform(numbers[train]))).transform(numbers)
    texts = np.array([[row[1]] for row in rows], dtype=object)
    encoder = OneHotEncoder(min_frequency=11, handle_unknown="infrequent_if_exist", sparse_output=False)
    blocks = encoder.fit(texts[train]).transform(texts)
    expected = np.column_stack([scaled[:, 0], np.isnan(numbers[:, 0]), blocks, scaled[:, 1]])
    np.testing.assert_allclose(source.features, expected, rtol=1e-5, atol=1e-6)
    column = source.inputs.columns[1]
    assert isinstance(column, CategoryColumn)
    assert column.rare
    assert "" in column.levels
    assert not any(level.startswith("seldom") for level in column.levels)


def test_what_is_known_of_columns_travels_as_plain_data(write: Write) -> None:
    rows = people()
    write(text_of(rows))
    source = table("csv:t.csv?target=buys")
    again = TableInputs.model_validate_json(source.inputs.model_dump_json())
    columns = dict(zip(("age", "colour", "pay"), zip(*rows, strict=False), strict=False))
    assert np.array_equal(again.encode(columns), source.features)


def test_a_number_with_many_values_is_predicted_in_its_unit(write: Write) -> None:
    rows = people(200)
    write(text_of(rows))
    source = table("csv:t.csv?target=pay")
    assert source.task.kind == "tabular-regression"
    assert source.task.outputs == 1
    assert source.inputs.classes == ()
    pay = np.array([float(row[2]) for row in rows])
    assert source.targets.tolist() == pay.tolist()
    train = pay[source.parts.train]
    assert (source.inputs.target_mean, source.inputs.target_deviation) == pytest.approx((train.mean(), train.std()))
    # Small and large ones in every part: the tenths of the whole have about as much in each.
    edges = np.quantile(pay, [0.25, 0.5, 0.75])
    for _, part in source.parts.items():
        counts = np.bincount(np.searchsorted(edges, pay[part]), minlength=4) / len(part)
        assert np.abs(counts - 0.25).max() < 0.11


@pytest.mark.parametrize(
    ("values", "option", "kind"),
    [
        (["0", "1"], "", "classification"),
        (["0.5", "1.5"], "", "classification"),
        (["1", "2", "3", "4", "5"], "", "classification"),
        (["1", "2", "3", "4", "5"], "&task=regression", "regression"),
        ([str(number) for number in range(21)], "", "regression"),
        ([str(number) for number in range(21)], "&task=classification", "classification"),
        ([f"{number / 8}" for number in range(10)], "&task=regression", "regression"),
        (["a", "b", "7"], "", "classification"),
    ],
)
def test_whether_a_target_is_a_class_or_a_number(write: Write, values: list[str], option: str, kind: str) -> None:
    write(text_of([[row[0] or "1", values[number % len(values)]] for number, row in enumerate(people(210))], "x,y"))
    assert table(f"csv:t.csv?target=y{option}").task.kind == f"tabular-{kind}"


def test_numbers_are_one_class_however_they_are_written(write: Write) -> None:
    write(text_of([[str(number), ("1", "1.0", "10", "2")[number % 4]] for number in range(80)], "x,y"))
    assert table("csv:t.csv?target=y").inputs.classes == ("1", "2", "10")
    write(text_of([[str(number), ("0.5", ".50", "-1.25")[number % 3]] for number in range(60)], "x,y"))
    assert table("csv:t.csv?target=y").inputs.classes == ("-1.25", "0.5")


def test_a_value_that_only_other_parts_lack_is_told_of(write: Write) -> None:
    rows = [["30", *row[1:]] for row in people()]
    write(text_of(rows))
    write(text_of([["", "red", "100", "no"], ["31", "red", "", "yes"]]), "u.csv")
    source = table("csv:t.csv?target=buys&test=u.csv&drop=age")
    assert source.warnings == (
        "column 'pay': in the test part 1 row has no value, which no training row lacks; the median is put there",
    )
    assert source.task.table() == (3, 1)


def test_a_file_as_uci_has_it(write: Write) -> None:
    """Blanks after commas, no header, question marks, blank lines at the end, a test part whose classes end in dots."""
    rows = people(120)
    for row in rows[::7]:
        row[1] = "?"
    write(text_of(rows[:90], "", ", ") + "\n\n", "a.data.gz")
    write("\n" + text_of([[*row[:3], f"{row[3]}."] for row in rows[90:]], "", ", "), "b.test.gz")
    source = table("csv:a.data.gz?header=no&target=c3&missing=?&test=b.test.gz")
    assert source.inputs.classes == ("no", "yes")
    assert source.parts.test.tolist() == list(range(90, 120))
    assert source.targets.tolist() == [int(row[3] == "yes") for row in rows]
    assert [column.name for column in source.inputs.columns] == ["c0", "c1", "c2"]
    column = source.inputs.columns[1]
    assert isinstance(column, CategoryColumn)
    assert column.levels == ("", "blue", "green", "red")
    assert "?" in source.inputs.missing
    assert source.warnings == ("b.test.gz: 'no.' and the like are read without the dot",)


def test_the_test_file_may_have_its_columns_in_another_order(write: Write) -> None:
    rows = people(130)
    write(text_of(rows[:100]))
    write(text_of([row[::-1] for row in rows[100:]], "buys,pay,colour,age"), "u.csv")
    source = table("csv:t.csv?target=buys&test=u.csv")
    write(text_of(rows), "all.csv")
    assert source.targets.tolist() == table("csv:all.csv?target=buys").targets.tolist()
    assert source.features[100:, 1].tolist() == [float(not row[0]) for row in rows[100:]]


def test_columns_are_dropped_and_names_are_unquoted(write: Write) -> None:
    write(text_of(people(), 'age,"colour, of hair",pay,b&b'))
    source = table("csv:t.csv?target=b%26b&drop=age,colour%2C of hair")
    assert [column.name for column in source.inputs.columns] == ["pay"]


def test_a_limit_leaves_rows_out(write: Write) -> None:
    write(text_of(people(300)))
    source = table("csv:t.csv?target=buys", Split(limit=50))
    assert sum(source.sizes[part] for part in ("train", "valid")) == 50
    assert len(source.features) == len(source.targets) == sum(source.sizes.values())


def test_rows_without_a_target_are_left_out_and_counted(write: Write) -> None:
    head, *rows = GOOD.splitlines()
    lacking = "\n".join([head, rows[0], "1,red,5, ", *rows[1:], "", "9,red,5,NA", ""])
    write(GOOD, "g.csv")
    write(lacking, "l.csv")
    good, found = table("csv:g.csv?target=buys"), table("csv:l.csv?target=buys")
    assert found.warnings == ("l.csv, line 3: 2 rows are left out, which have no value of the target 'buys'",)
    assert np.array_equal(found.features, good.features)
    assert np.array_equal(found.targets, good.targets)
    assert found.split_hash == good.split_hash
    tested = table("csv:g.csv?target=buys&test=l.csv")
    assert tested.warnings[0].startswith("l.csv, line 3: 2 rows are left out")
    assert len(tested.parts.test) == len(rows)


def test_examples_are_rows_of_the_validation_part(write: Write) -> None:
    write(text_of(people(300)))
    source = table("csv:t.csv?target=buys", Split(limit=50))
    assert len(source.examples) == 3
    cells = dict(zip(("age", "colour", "pay"), zip(*source.examples, strict=True), strict=True))
    assert np.array_equal(source.inputs.encode(cells), source.features[source.parts.valid[:3]])


def test_quoted_cells_hold_commas_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_bytes('\ufeffa, b\r\n"x, y", "1\n2"\r\n  \r\n z ,"say ""so"""\r\n'.encode())
    cells = read(path)
    assert cells.columns == {"a": ["x, y", "z"], "b": ["1\n2", 'say "so"']}
    assert cells.lines == [3, 5]


# What is told


def told(reference: str) -> tuple[str, ...]:
    return table(reference).warnings


def test_columns_that_say_nothing_are_left_out(write: Write) -> None:
    rows = [[*row, "", "always", f"id{number}"] for number, row in enumerate(people(300))]
    write(text_of(rows, "age,colour,pay,buys,empty,same,who"))
    source = table("csv:t.csv?target=buys")
    assert [column.name for column in source.inputs.columns] == ["age", "colour", "pay"]
    assert source.warnings == (
        "column 'empty' is left out: it has no value in the training part",
        "column 'same' is left out: it is always 'always' in the training part",
        "column 'who' is left out: each of its 216 texts is rare",
    )


def test_texts_that_training_has_not_seen_are_named(write: Write) -> None:
    rows = people(100)
    write(text_of(rows))
    write(text_of([["30", colour, "100", "no"] for colour in ("red", "pink", "", "pink")]), "u.csv")
    source = table("csv:t.csv?target=buys&test=u.csv")
    assert source.warnings[0] == (
        "column 'colour': 3 rows of the test part have texts that no training row has and that are no level of the "
        "column: 'pink', no value"
    )
    assert source.warnings[1].startswith("class 'yes' has no test sample")
    assert source.features[-3:, 2:5].tolist() == [[0.0] * 3] * 3


def test_unseen_texts_are_rare_ones_where_there_are_such(write: Write) -> None:
    rows = people(3000)
    rows[5][1] = rows[6][1] = "mauve"
    write(text_of(rows))
    write(text_of([["30", "pink", "100", label] for label in ("no", "yes")]), "u.csv")
    source = table("csv:t.csv?target=buys&test=u.csv")
    assert "that count as rare ones: 'pink'" in source.warnings[0]
    assert source.features[-2:, 2:6].tolist() == [[0.0, 0.0, 0.0, 1.0]] * 2


def test_a_column_of_numbers_with_other_texts_is_told_of(write: Write) -> None:
    rows = people(300)
    rows[17][2] = "unknown"
    write(text_of(rows))
    assert told("csv:t.csv?target=buys")[0] == (
        "column 'pay' is read as texts: 1 of its values are no numbers ('unknown', t.csv, line 19); where they mean a "
        "missing value add missing=unknown"
    )
    assert told("csv:t.csv?target=buys&missing=unknown,-") == ()


def test_columns_without_a_name_are_told_of(write: Write) -> None:
    write(text_of([[str(number), *row] for number, row in enumerate(people())], ",age,colour,pay,buys"))
    assert told("csv:t.csv?target=buys") == ("columns without a name are called c0; drop=c0 leaves one out",)


# What is refused

GOOD = text_of(people())


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (GOOD, "", "needs a column to predict: add ?target=COLUMN (of age, colour, pay, buys)"),
        (GOOD, "?target=buy", "unknown column 'buy'; did you mean 'buys'? (known: age, colour, pay, buys)"),
        (GOOD, "?target=c3", "has the file no line of names? Then add header=no"),
        (GOOD, "?target=buys&drop=colr", "unknown column 'colr'; did you mean 'colour'?"),
        (GOOD, "?target=buys&drop=buys", "column 'buys' is the target; take it out of drop"),
        (GOOD, "?target=buys&drop=age,colour,pay", "no column is left to predict 'buys' from"),
        (GOOD, "?target=buys&tset=u.csv", "unknown option 'tset'; did you mean 'test'?"),
        (GOOD, "?target=buys&task=regression", "line 2: 'no' of the target 'buys' is no number to predict"),
        (GOOD, "?target=buys&task=both", "task: "),
        (GOOD, "?target=pay&task=classification", "classes in 100 rows; classes need several rows each"),
        (GOOD + "1,red,5\n", "?target=buys", "t.csv, line 102: 3 values, and 4 in the first line"),
        (GOOD.replace("\n", "\n1,red,5,no,\n", 1), "?target=buys", "t.csv, line 2: 5 values, and 4 in the first line"),
        ("a,b\n1,\n2,x\n3,4\n", "?target=b&task=regression", "line 3: 'x' of the target 'b' is no number"),
        ("a,b\n1,\n2,NA\n", "?target=b", "t.csv: no row has a value of the target 'b'; name another column"),
        ("1.5,red,2\n2.5,blue,3\n", "?target=price", "has the file no line of names? Then add header=no"),
        ("", "?target=buys", "t.csv: is empty"),
        ("\n \n", "?target=buys", "t.csv: is empty"),
        ("a,b\n", "?target=b", "t.csv: has a line of names and no rows"),
        ("a;b\n1;2\n", "?target=b", "has one column only, and semicolons in it"),
        ("a,a\n1,2\n", "?target=a", "two columns are called 'a'"),
        ("a,b\n1,2\n3,2\n4,2\n", "?target=b", "the target 'b' is always '2'; nothing is to predict"),
        (
            "a,b\n" + "".join(f"{n},{n % 5 / 4}\n" for n in range(90)),
            "?target=b",
            "has 5 different numbers, which could",
        ),
        ("a,b\n1,x\n2,y\n", "?target=b", "the target 'b' has 2 classes in 2 rows; classes need several rows each"),
    ],
)
def test_what_cannot_be_learned_from_is_said_in_a_line(write: Write, text: str, options: str, message: str) -> None:
    write(text)
    with pytest.raises(UsageError) as caught:
        load(f"csv:t.csv{options}")
    assert message in str(caught.value)
    assert "t.csv" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_test_part_must_fit(write: Write) -> None:
    write(GOOD)
    write(text_of(people(), "age,color,pay,buys"), "u.csv")
    with pytest.raises(UsageError, match=r"u.csv: has no column 'colour'; did you mean 'color'\?"):
        load("csv:t.csv?target=buys&test=u.csv")
    write(text_of([[*row, "1"] for row in people()], "age,colour,pay,buys,more"), "u.csv")
    with pytest.raises(UsageError, match=r"u.csv: also has 'more'; t.csv and its test part need the same columns"):
        load("csv:t.csv?target=buys&test=u.csv")
    write(text_of([[*row[:3], "maybe"] for row in people()]), "u.csv")
    with pytest.raises(UsageError, match=r"u.csv, line 2: class 'maybe' does not occur in t.csv"):
        load("csv:t.csv?target=buys&test=u.csv")


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n1,2\n\xe9,3\n")
    with pytest.raises(UsageError, match=r"t.csv, line 3: is no UTF-8 \(b'\\xe9'\); save it so"):
        load(f"csv:{path}?target=b")
    path.with_suffix(".csv.gz").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(UsageError, match="damaged gzip file"):
        load(f"csv:{path}.gz?target=b")


# Files for a trained network


def test_rows_of_a_file_are_read_for_a_network(write: Write) -> None:
    """Without the target, with columns in another order and one more, the same rows come out."""
    rows = people()
    write(text_of(rows))
    source = table("csv:t.csv?target=buys")
    write(text_of([[row[2], "x", row[1], row[0]] for row in rows[:9]], "pay,note,colour,age"), "new.csv.gz")
    found = samples.read(source.inputs, "csv:new.csv.gz")
    assert np.array_equal(found.tensors[0], source.features[:9])
    assert found.names[:2] == ("new.csv.gz:2", "new.csv.gz:3")
    assert (found.note, found.apart) == ("", True)
    write(text_of([["1", "pink", "2"], ["1", "", "2"]], "age,colour,pay"), "odd.csv")
    assert samples.read(source.inputs, "odd.csv").note == (
        "hold texts that the training part does not have: 'pink', no value of column 'colour'"
    )


def test_a_network_for_one_column(write: Write) -> None:
    write(text_of([[row[2], row[3]] for row in people()], "pay,buys"))
    source = table("csv:t.csv?target=buys")
    write("pay\n100\n\n110\n", "u.csv")
    found = samples.read(source.inputs, "u.csv")
    assert found.names == ("u.csv:2", "u.csv:4")
    assert found.tensors[0].shape == (2, 1)
    write('pay\n100\n""\n', "u.csv")
    with pytest.raises(UsageError, match=r"u.csv: a row of its only column has no value"):
        samples.read(source.inputs, "u.csv")
    write("buys\nno\nyes\n", "u.csv")
    with pytest.raises(UsageError, match="no column is left to predict 'buys' from"):
        load("csv:u.csv?target=buys")


def test_a_file_that_a_network_cannot_read_is_named(write: Write) -> None:
    write(text_of(people()))
    inputs = table("csv:t.csv?target=buys").inputs
    write("age,pay\n1,2\n", "u.csv")
    with pytest.raises(UsageError, match=r"u.csv: there is no column 'colour'; found are age, pay"):
        samples.read(inputs, "u.csv")
    write("age,colour,pay\n1,red,2\n1,red,lots\n", "u.csv")
    with pytest.raises(UsageError, match=r"u.csv: column 'pay': 'lots' in row 1 is no number"):
        samples.read(inputs, "u.csv")
    with pytest.raises(NotFoundError, match=r"nowhere.csv does not exist"):
        samples.read(inputs, "csv:nowhere.csv")
