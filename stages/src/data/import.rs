//! Files of any format become a data set: one Arrow file a split.
//!
//! Text formats are read twice: once to find out the types of the columns and their classes in all splits,
//! once to write. Parquet and Arrow are read once, unless a column of classes is declared.

use std::collections::BTreeMap;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema};
use taper_engine::{Reporter, StageError, Unit};

use super::columns::{Builder, Column, ColumnType, Declared, Survey, no_such_column, schema_of};
use super::format::{Format, SourceFile};
use super::rows::{Cell, Place, visit_rows};
use super::tables;
use crate::artifact::dataset::EXTENSION;
use crate::artifact::table::{BATCH_ROWS, list, type_name};
use crate::artifact::{Features, TableWriter};

/// The files of each split, in their order.
pub type Splits = BTreeMap<String, Vec<SourceFile>>;

/// Writes `SPLIT.arrow` for each split into the folder `out`.
///
/// # Errors
/// Where a file is not what its format says, where files of one split have different columns, where a
/// declared column is missing or of another type, and where a split has no row.
pub fn import(
    splits: &Splits,
    declared: &Declared,
    out: &Path,
    reporter: &Reporter,
) -> Result<(), StageError> {
    let mut formats = splits.values().flatten().map(|source| source.format);
    let Some(first) = formats.next() else {
        return Err(
            StageError::invalid("there is no file to read").help(format!(
                "files are known by their extensions: {}",
                Format::EXTENSIONS
            )),
        );
    };
    if let Some(other) = formats.find(|format| is_table(*format) != is_table(first)) {
        return Err(StageError::invalid(format!(
            "the files are of different formats: {first:?} and {other:?}"
        ))
        .help("read them in two `download` stages"));
    }
    let written = match is_table(first) {
        true => import_tables(splits, declared, out, reporter),
        false => import_rows(splits, declared, out, reporter),
    };
    for (split, rows) in written? {
        if rows == 0 {
            let names = splits[split].iter().map(|source| source.name.as_str());
            return Err(StageError::invalid(format!(
                "split `{split}` has no rows: {}",
                list(names)
            ))
            .help("leave the split out with `splits`, or look at the file"));
        }
    }
    Ok(())
}

fn is_table(format: Format) -> bool {
    matches!(format, Format::Parquet | Format::Arrow)
}

type Written<'s> = Vec<(&'s str, usize)>;

fn import_rows<'s>(
    splits: &'s Splits,
    declared: &Declared,
    out: &Path,
    reporter: &Reporter,
) -> Result<Written<'s>, StageError> {
    let mut survey = Survey::new(declared);
    let looking = reporter.progress("looking at types", None, Unit::Rows);
    for source in splits.values().flatten() {
        visit_rows(source, reporter, &mut |place, cells| {
            looking.add(1);
            survey.see(place, cells)
        })?;
    }
    let columns = survey.settle()?;
    if columns.is_empty() {
        let names = splits.values().flatten().map(|source| source.name.as_str());
        return Err(StageError::invalid(format!(
            "there are no rows in {}",
            list(names)
        )));
    }
    let schema = schema_of(&columns);
    let mut written = Vec::new();
    for (split, sources) in splits {
        let progress = reporter.progress(format!("writing {split}"), None, Unit::Rows);
        let mut writer = TableWriter::create(&out.join(format!("{split}{EXTENSION}")), &schema)?;
        let mut builders: Vec<Builder<'_>> = columns.iter().map(Builder::new).collect();
        for source in sources {
            visit_rows(source, reporter, &mut |place, cells| {
                for (position, (builder, column)) in builders.iter_mut().zip(&columns).enumerate() {
                    let cell = match cells.get(position) {
                        Some((name, cell)) if *name == column.name => *cell,
                        _ => cells
                            .iter()
                            .find(|(name, _)| *name == column.name)
                            .map_or(Cell::Missing, |(_, cell)| *cell),
                    };
                    builder.push(place, cell)?;
                }
                progress.add(1);
                match builders[0].len() {
                    BATCH_ROWS => flush(&mut writer, &mut builders),
                    _ => Ok(()),
                }
            })?;
        }
        flush(&mut writer, &mut builders)?;
        written.push((split.as_str(), writer.finish()?));
    }
    Ok(written)
}

fn flush(writer: &mut TableWriter, builders: &mut [Builder<'_>]) -> Result<(), StageError> {
    let columns = builders.iter_mut().map(Builder::finish).collect();
    let batch = RecordBatch::try_new(writer.schema().clone(), columns)
        .map_err(|error| StageError::failed(error.to_string()))?;
    writer.write(&batch)
}

fn import_tables<'s>(
    splits: &'s Splits,
    declared: &Declared,
    out: &Path,
    reporter: &Reporter,
) -> Result<Written<'s>, StageError> {
    let typed = declared_columns(splits, declared, reporter)?;
    let mut written = Vec::new();
    for (split, sources) in splits {
        let path = out.join(format!("{split}{EXTENSION}"));
        let mut writer: Option<(TableWriter, Schema)> = None;
        let progress = reporter.progress(format!("writing {split}"), None, Unit::Rows);
        for source in sources {
            let (schema, batches) = tables::open(source)?;
            if writer.is_none() {
                let schema = retyped_schema(&schema, &typed);
                writer = Some((TableWriter::create(&path, &schema)?, schema));
            }
            let Some((writer, target)) = writer.as_mut() else {
                continue;
            };
            let order = same_columns(
                target,
                &retyped_schema(&schema, &typed),
                source,
                &sources[0],
            )?;
            let mut builders: BTreeMap<&str, Builder<'_>> = typed
                .iter()
                .map(|column| (column.name.as_str(), Builder::new(column)))
                .collect();
            let mut before = 0;
            for batch in batches {
                reporter.check()?;
                let batch = batch?;
                let columns = order
                    .iter()
                    .zip(target.fields())
                    .map(
                        |(index, field)| match builders.get_mut(field.name().as_str()) {
                            None => Ok(batch.column(*index).clone()),
                            Some(builder) => {
                                for row in 0..batch.num_rows() {
                                    let place = place(source, before + row);
                                    let cell = tables::cell(batch.column(*index), row);
                                    builder.push(place, cell.unwrap_or(Cell::Missing))?;
                                }
                                Ok(builder.finish())
                            }
                        },
                    )
                    .collect::<Result<Vec<_>, StageError>>()?;
                let batch = RecordBatch::try_new(writer.schema().clone(), columns)
                    .map_err(|error| StageError::failed(error.to_string()))?;
                writer.write(&batch)?;
                before += batch.num_rows();
                progress.add(batch.num_rows() as u64);
            }
        }
        if let Some((writer, _)) = writer {
            written.push((split.as_str(), writer.finish()?));
        }
    }
    Ok(written)
}

fn place(source: &SourceFile, row: usize) -> Place<'_> {
    Place {
        unit: "row",
        number: row as u64 + 1,
        file: &source.name,
    }
}

/// The declared columns whose types the files do not have already, with the classes of all splits.
fn declared_columns(
    splits: &Splits,
    declared: &Declared,
    reporter: &Reporter,
) -> Result<Vec<Column>, StageError> {
    if declared.is_empty() {
        return Ok(Vec::new());
    }
    let mut changed = Declared::new();
    for source in splits.values().flatten() {
        let (schema, _) = tables::open(source)?;
        let names: Vec<&str> = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        for (name, column_type) in declared {
            let field = schema
                .field_with_name(name)
                .map_err(|_| no_such_column(name, &names))?;
            let classes = Features::of(&schema).class_names(name).is_some();
            if has_type(field, *column_type, classes) {
                continue;
            }
            if !tables::has_cells(field.data_type()) {
                return Err(StageError::invalid(format!(
                    "column `{name}` of `{}` is {}, which cannot be read as another type",
                    source.name,
                    type_name(field.data_type())
                ))
                .at(format!("columns.{name}"))
                .help("leave it out of `columns`: it keeps its type"));
            }
            changed.insert(name.clone(), *column_type);
        }
    }
    if !changed
        .values()
        .any(|column_type| *column_type == ColumnType::Class)
    {
        return Ok(changed
            .into_iter()
            .map(|(name, column_type)| Column {
                name,
                column_type,
                classes: Vec::new(),
            })
            .collect());
    }
    let mut survey = Survey::new(&changed);
    for source in splits.values().flatten() {
        let (schema, batches) = tables::open(source)?;
        let mut before = 0;
        for batch in batches {
            reporter.check()?;
            let batch = batch?;
            for name in changed.keys() {
                let index = schema
                    .index_of(name)
                    .map_err(|_| no_such_column(name, &[]))?;
                for row in 0..batch.num_rows() {
                    let cell = tables::cell(batch.column(index), row);
                    let cell = cell.unwrap_or(Cell::Missing);
                    survey.see(place(source, before + row), &[(name.as_str(), cell)])?;
                }
            }
            before += batch.num_rows();
        }
    }
    survey.settle()
}

fn has_type(field: &Field, column_type: ColumnType, classes: bool) -> bool {
    use arrow_schema::DataType;
    match column_type {
        ColumnType::String => matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8),
        ColumnType::Int64 => *field.data_type() == DataType::Int64,
        ColumnType::Float64 => *field.data_type() == DataType::Float64,
        ColumnType::Bool => *field.data_type() == DataType::Boolean,
        ColumnType::Class => *field.data_type() == DataType::Int64 && classes,
    }
}

fn retyped_schema(schema: &Schema, typed: &[Column]) -> Schema {
    let new = schema_of(typed);
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| match new.field_with_name(field.name()) {
            Ok(new) => new.clone(),
            Err(_) => field.as_ref().clone().with_nullable(true),
        })
        .collect();
    let described = Features::of(schema);
    let retyped = Schema::new(fields);
    let mut features = Features::of(&retyped);
    for field in schema.fields() {
        if typed.iter().all(|column| column.name != *field.name()) {
            features = features.with_column_of(&described, field.name());
        }
    }
    for column in typed
        .iter()
        .filter(|column| column.column_type == ColumnType::Class)
    {
        features = features.with_classes(&column.name, &column.classes);
    }
    features.describe(&retyped)
}

/// For each column of the split where it is in this file.
fn same_columns(
    split: &Schema,
    file: &Schema,
    source: &SourceFile,
    first: &SourceFile,
) -> Result<Vec<usize>, StageError> {
    let order: Option<Vec<usize>> = split
        .fields()
        .iter()
        .map(|field| {
            let index = file.index_of(field.name()).ok()?;
            (file.field(index).data_type() == field.data_type()).then_some(index)
        })
        .collect();
    order
        .filter(|order| order.len() == file.fields().len())
        .ok_or_else(|| {
            let columns = |schema: &Schema| {
                let columns: Vec<String> = schema
                    .fields()
                    .iter()
                    .map(|field| format!("{} ({})", field.name(), field.data_type()))
                    .collect();
                columns.join(", ")
            };
            StageError::invalid(format!(
                "`{}` has not the columns of `{}`: {} against {}",
                source.name,
                first.name,
                columns(file),
                columns(split)
            ))
            .help("the files of one split have to have the same columns; read the others in a stage of their own")
        })
}

#[cfg(test)]
mod tests {
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::artifact::Table;
    use crate::testing::{Workshop, told};

    fn source(shop: &Workshop, name: &str, content: &[u8]) -> SourceFile {
        let path = shop.fresh().join("content");
        fs_err::write(&path, content).expect("written");
        let format = Format::of(name).expect("a known extension");
        SourceFile {
            path,
            name: name.to_owned(),
            format,
        }
    }

    fn declared(columns: &[(&str, ColumnType)]) -> Declared {
        columns
            .iter()
            .map(|(name, column_type)| ((*name).to_owned(), *column_type))
            .collect()
    }

    fn read(
        shop: &Workshop,
        files: &[(&str, &[u8])],
        columns: &Declared,
    ) -> Result<BTreeMap<String, Table>, StageError> {
        let mut splits = Splits::new();
        for (name, content) in files {
            let split = crate::data::names::split_of(name).unwrap_or_else(|| "train".to_owned());
            splits
                .entry(split)
                .or_default()
                .push(source(shop, name, content));
        }
        let out = shop.fresh();
        import(&splits, columns, &out, &shop.reporter())?;
        Ok(splits
            .keys()
            .map(|split| {
                let table = Table::open(&out.join(format!("{split}.arrow")), split).expect("opens");
                (split.clone(), table)
            })
            .collect())
    }

    fn fails(files: &[(&str, &[u8])], columns: &Declared) -> String {
        let shop = Workshop::new();
        told(&read(&shop, files, columns).expect_err("it has to fail"))
    }

    fn one(name: &str, content: &[u8], columns: &Declared) -> Table {
        let shop = Workshop::new();
        let mut splits =
            read(&shop, &[(name, content)], columns).unwrap_or_else(|e| panic!("{}", told(&e)));
        splits.remove("train").expect("one split")
    }

    #[test]
    fn types_are_inferred() {
        let table = one(
            "train.csv",
            b"\xef\xbb\xbftext,whole,number,truth,zip\n\"a, \"\"b\"\"\nc\",1,1.5,true,007\n,,2,false,123\n",
            &Declared::new(),
        );
        let types: Vec<_> = table
            .schema()
            .fields()
            .iter()
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect();
        assert_eq!(
            types,
            [
                "text Utf8",
                "whole Int64",
                "number Float64",
                "truth Boolean",
                "zip Utf8"
            ]
        );
        assert_eq!(table.text("text").expect("text").get(0), "a, \"b\"\nc");
        assert_eq!(
            table
                .column("whole")
                .expect("column")
                .next()
                .expect("batch")
                .null_count(),
            1
        );
    }

    #[test]
    fn classes_are_those_of_all_splits() {
        let shop = Workshop::new();
        let files: [(&str, &[u8]); 2] = [
            ("train.tsv", b"text\tlabel\na\tpos\nb\tneg\n"),
            ("test.tsv", b"text\tlabel\nc\tother\nd\tpos\n"),
        ];
        let splits = read(&shop, &files, &declared(&[("label", ColumnType::Class)])).expect("read");
        let labels = splits["test"].labels("label").expect("labels");
        assert_eq!(labels.values, [1, 2]);
        assert_eq!(labels.names.expect("names"), ["neg", "other", "pos"]);
    }

    #[test]
    fn json_in_both_forms_is_the_same_data() {
        let lines = one(
            "train.jsonl",
            b"{\"b\": \"x\", \"a\": 1}\n\n{\"a\": 2.5, \"c\": true}\n",
            &Declared::new(),
        );
        let array = one(
            "train.json",
            b" [{\"b\": \"x\", \"a\": 1}, {\"a\": 2.5, \"c\": true}]",
            &Declared::new(),
        );
        assert_eq!(lines.batches(), array.batches());
        assert_eq!(lines.columns().collect::<Vec<_>>(), ["b", "a", "c"]);
    }

    #[test]
    fn files_of_one_split_stand_one_behind_the_other() {
        let shop = Workshop::new();
        let files: [(&str, &[u8]); 2] = [
            ("train-1.csv", b"a,b\n1,x\n"),
            ("train-2.csv", b"b,a\ny,2\n"),
        ];
        let splits = read(&shop, &files, &Declared::new()).expect("read");
        assert_eq!(
            splits["train"].labels("a").expect("whole numbers").values,
            [1, 2]
        );
    }

    fn parquet(table: &Table) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, table.schema().clone(), None).expect("writer");
        for batch in table.batches() {
            writer.write(batch).expect("written");
        }
        writer.close().expect("closed");
        bytes
    }

    #[test]
    fn parquet_and_arrow_keep_their_types_and_take_classes() {
        let csv = one(
            "train.csv",
            b"text,label\na,good\nb,bad\n",
            &Declared::new(),
        );
        let bytes = parquet(&csv);
        let plain = one("train.parquet", &bytes, &Declared::new());
        assert_eq!(plain.batches(), csv.batches());
        let classes = one(
            "train.parquet",
            &bytes,
            &declared(&[("label", ColumnType::Class)]),
        );
        let labels = classes.labels("label").expect("labels");
        assert_eq!(
            (labels.values, labels.names.expect("names")),
            (vec![1, 0], vec!["bad".to_owned(), "good".to_owned()])
        );
    }

    #[test]
    fn mistakes_in_text_are_told_with_their_places() {
        let none = Declared::new();
        let told = |name: &str, content: &[u8]| fails(&[(name, content)], &none);
        insta::assert_snapshot!(told("a.csv", b"text,label\na,1\nb\n"), @r#"
        line 3 of `a.csv` has 1 field, but the first line names 2 columns
          help: put fields that hold the separator or a line break in double quotes, and double the quotes in them
        "#);
        insta::assert_snapshot!(told("a.csv", b"text,label\na,1\n\xe9t\xe9,2\n"), @r#"
        line 3 of `a.csv` is not UTF-8: byte 1 of column `text`
          help: save it as UTF-8 (`iconv -f latin1 -t utf-8 OLD > NEW`, for example)
        "#);
        insta::assert_snapshot!(told("a.csv", b""), @r#"
        `a.csv` is empty
          help: its first line has to name the columns
        "#);
        insta::assert_snapshot!(told("a.csv", b"text,label\n"), @"there are no rows in `a.csv`");
        insta::assert_snapshot!(told("a.csv", b"text,text\na,b\n"), @r#"
        the first line of `a.csv` names `text` twice
          help: give every column a name of its own
        "#);
        insta::assert_snapshot!(told("a.jsonl", b"{\"a\": 1}\n{\"a\": \"x\"}\n"), @r#"
        column `a` is text in line 2 of `a.jsonl`, but a whole number in line 1 of `a.jsonl`
          help: make its values of one sort, or say what they are to be: `columns: { a: string }`
        "#);
        insta::assert_snapshot!(told("a.jsonl", b"{\"a\": 1}\n{\"a\": 1\n"), @r#"
        line 2 of `a.jsonl`, column 7: EOF while parsing an object
          help: each line has to be one JSON object
        "#);
        insta::assert_snapshot!(told("a.jsonl", b"{\"a\": [1]}\n"), @r#"
        line 1 of `a.jsonl`, column 7: invalid type: sequence, expected a text, a number, true, false or null
          help: each line has to be one JSON object
        "#);
        insta::assert_snapshot!(told("a.json", b"[{\"a\": 1}, 2]"), @r#"
        line 1, column 13 of `a.json`: invalid type: integer `2`, expected an object
          help: the file has to be an array of JSON objects, or one object a line
        "#);
        insta::assert_snapshot!(fails(&[("train.csv", b"a\n1\n"), ("test.parquet", b"")], &none), @r#"
        the files are of different formats: Parquet and Csv
          help: read them in two `download` stages
        "#);
    }

    #[test]
    fn mistakes_in_declarations_are_told() {
        let csv: (&str, &[u8]) = ("a.csv", b"text,label\na,1\nb,x\n");
        let told = |name, column_type| fails(&[csv], &declared(&[(name, column_type)]));
        insta::assert_snapshot!(told("lable", ColumnType::Class), @r#"
        the data has no column `lable`
          at columns.lable
          help: did you mean `label`?
        "#);
        insta::assert_snapshot!(told("label", ColumnType::Int64), @r#"
        line 3 of `a.csv`: column `label` is `x`, not a whole number
          at columns.label
          help: correct the value, or declare another type in `columns`
        "#);
        insta::assert_snapshot!(told("label", ColumnType::Bool), @r#"
        line 2 of `a.csv`: column `label` is `1`, not true or false
          at columns.label
          help: correct the value, or declare another type in `columns`
        "#);
    }

    #[test]
    fn cut_tables_are_errors() {
        let csv = one(
            "train.csv",
            b"text,label\na,good\nb,bad\n",
            &Declared::new(),
        );
        let bytes = parquet(&csv);
        let none = Declared::new();
        for length in [0, 3, bytes.len() / 2, bytes.len() - 1] {
            fails(&[("a.parquet", &bytes[..length])], &none);
        }
        insta::assert_snapshot!(fails(&[("a.parquet", &bytes[..bytes.len() - 1])], &none), @r#"
        `a.parquet` is not a whole Parquet file: Parquet error: Invalid Parquet file. Corrupt footer
          help: write it again, or download it again: it is cut or damaged
        "#);
        insta::assert_snapshot!(fails(&[("a.arrow", b"ARROW1 and no more")], &none), @r#"
        `a.arrow` is not a whole Arrow IPC file: Parser error: Arrow file does not contain correct footer
          help: write it again, or download it again; it has to be in the file format (not the stream format), not cut
        "#);
        insta::assert_snapshot!(fails(&[("a.arrow", b"nothing")], &none), @r#"
        `a.arrow` is not a whole Arrow file or stream: Parser error: Unexpected end of stream: expected 1752461166 metadata bytes, got 3
          help: write it again, or download it again: it is cut or damaged
        "#);
    }
}
