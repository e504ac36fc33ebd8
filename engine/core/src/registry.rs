//! Kinds without their types: what the engine holds of a [`Kind`], whatever its parameters are.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use taper_cache::Digest;

use crate::canonical::{
    CanonicalError, Found, FoundAt, Value, from_value, references, to_value, to_value_with,
};
use crate::deserialize::{ReadError, from_node};
use crate::diagnostic::Diagnostic;
use crate::kind::{Context, Device, Inputs, Kind, Makes, Outside, Stage, StageError};
use crate::node::{Entry, Node};
use crate::pipeline::StageText;
use crate::schema::{self, Definitions, NamedInput};

/// A [`Kind`] as an object. Implemented for every kind; not to be implemented by hand.
pub trait AnyKind: Send + Sync + 'static {
    /// [`Kind::NAME`].
    fn name(&self) -> &'static str;
    /// [`Kind::VERSION`].
    fn version(&self) -> u32;
    /// [`Kind::SEEDED`].
    fn seeded(&self) -> bool;
    /// [`Kind::COMPUTES`].
    fn computes(&self) -> bool;
    /// [`Kind::SPREADS`].
    fn spreads(&self) -> bool;
    /// [`Kind::EXAMPLE`].
    fn example(&self) -> &'static str;
    /// Whether [`Kind::resolve`] can find anything: its answer has a place to stand.
    fn resolves(&self) -> bool;
    /// The schemas of its parameters and of its settings, definitions in `generator`.
    fn schemas(&self, generator: &mut SchemaGenerator) -> KindSchemas;
    /// Reads parameters and settings of the pipeline file; both are maps.
    ///
    /// # Errors
    /// What the types say, with the place.
    fn read(&'static self, params: &Node, settings: &Node)
    -> Result<Arc<dyn AnyParams>, ReadError>;
    /// What a stage with these parameters makes: [`Kind::makes`], from what its key was made of.
    ///
    /// # Errors
    /// Where the parameters are not of this kind's type.
    fn makes(&self, params: &Value) -> Result<Makes, CanonicalError>;
    /// What the bits follow beyond the device's class: [`Kind::arithmetic`], from what the key is made of besides.
    ///
    /// # Errors
    /// Where the parameters are not of this kind's type.
    fn arithmetic(
        &self,
        params: &Value,
        inputs: &Inputs<'_>,
    ) -> Result<Option<String>, CanonicalError>;
    /// Runs a stage from what its key was made of: [`Kind::run`].
    ///
    /// # Errors
    /// Those of the stage, and where the ingredients are not of this kind's types.
    fn execute(&self, ingredients: Recipe<'_>, context: &Context) -> Result<(), StageError>;
}

/// What a stage runs from.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'r> {
    /// The parameters, with digests in the place of inputs and local paths.
    pub params: &'r Value,
    /// What was found outside.
    pub resolved: Option<&'r Value>,
    /// The settings.
    pub settings: &'r Value,
}

/// The JSON Schemas of a kind.
#[derive(Clone, Debug)]
pub struct KindSchemas {
    /// Of [`Kind::Params`].
    pub params: Schema,
    /// Of [`Kind::Settings`].
    pub settings: Schema,
}

/// Parameters and settings of one stage, whatever their types are.
pub trait AnyParams: Send + Sync {
    /// [`Kind::makes`].
    fn makes(&self) -> Makes;
    /// [`Kind::check`].
    fn check(&self) -> Vec<StageError>;
    /// [`Kind::check_on`].
    fn check_on(&self, device: Device) -> Vec<StageError>;
    /// Every input and local path, in the order of the parameters.
    ///
    /// # Errors
    /// Where the parameters have no canonical form.
    fn references(&self) -> Result<Vec<FoundAt>, CanonicalError>;
    /// The parameters with digests in the place of inputs and local paths.
    ///
    /// # Errors
    /// Where the parameters have no canonical form, and those of `digest_of`.
    fn params(
        &self,
        digest_of: &mut dyn FnMut(&FoundAt) -> Result<Digest, CanonicalError>,
    ) -> Result<Value, CanonicalError>;
    /// The settings.
    ///
    /// # Errors
    /// Where they have no canonical form.
    fn settings(&self) -> Result<Value, CanonicalError>;
    /// [`Kind::resolve`]. What the lock says is passed on where it has this kind's type.
    ///
    /// # Errors
    /// Those of the kind.
    fn resolve(&self, outside: Outside<Value>) -> Result<Option<Value>, StageError>;
}

struct Typed<K: Kind> {
    kind: &'static K,
    params: K::Params,
    settings: K::Settings,
}

impl<K: Kind> AnyKind for K {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn version(&self) -> u32 {
        K::VERSION
    }

    fn seeded(&self) -> bool {
        K::SEEDED
    }

    fn computes(&self) -> bool {
        K::COMPUTES
    }

    fn spreads(&self) -> bool {
        K::SPREADS
    }

    fn example(&self) -> &'static str {
        K::EXAMPLE
    }

    fn resolves(&self) -> bool {
        size_of::<K::Resolved>() > 0
    }

    fn makes(&self, params: &Value) -> Result<Makes, CanonicalError> {
        Ok(Kind::makes(self, &from_value(params)?))
    }

    fn arithmetic(
        &self,
        params: &Value,
        inputs: &Inputs<'_>,
    ) -> Result<Option<String>, CanonicalError> {
        match K::COMPUTES {
            true => Ok(Kind::arithmetic(self, &from_value(params)?, inputs)),
            false => Ok(None),
        }
    }

    fn schemas(&self, generator: &mut SchemaGenerator) -> KindSchemas {
        KindSchemas {
            params: generator.subschema_for::<K::Params>(),
            settings: generator.subschema_for::<K::Settings>(),
        }
    }

    fn read(
        &'static self,
        params: &Node,
        settings: &Node,
    ) -> Result<Arc<dyn AnyParams>, ReadError> {
        Ok(Arc::new(Typed {
            kind: self,
            params: from_node(params)?,
            settings: from_node(settings)?,
        }))
    }

    fn execute(&self, recipe: Recipe<'_>, context: &Context) -> Result<(), StageError> {
        let stage = Stage::<K> {
            params: from_value(recipe.params)?,
            settings: from_value(recipe.settings)?,
            resolved: recipe.resolved.map(from_value).transpose()?,
        };
        Kind::run(self, &stage, context)
    }
}

impl<K: Kind> AnyParams for Typed<K> {
    fn makes(&self) -> Makes {
        self.kind.makes(&self.params)
    }

    fn check(&self) -> Vec<StageError> {
        self.kind.check(&self.params)
    }

    fn check_on(&self, device: Device) -> Vec<StageError> {
        self.kind.check_on(&self.params, device)
    }

    fn references(&self) -> Result<Vec<FoundAt>, CanonicalError> {
        references(&self.params)
    }

    fn params(
        &self,
        digest_of: &mut dyn FnMut(&FoundAt) -> Result<Digest, CanonicalError>,
    ) -> Result<Value, CanonicalError> {
        to_value_with(&self.params, &mut |at| {
            let digest = digest_of(&at)?;
            Ok(match at.found {
                Found::Input(_) => Value::Input(digest),
                Found::Local(_) => Value::Local(digest),
            })
        })
    }

    fn settings(&self) -> Result<Value, CanonicalError> {
        to_value(&self.settings)
    }

    fn resolve(&self, outside: Outside<Value>) -> Result<Option<Value>, StageError> {
        let locked = outside.locked.as_ref();
        let outside = Outside {
            locked: locked.and_then(|locked| from_value(locked).ok()),
            offline: outside.offline,
            scratch: outside.scratch,
            reporter: outside.reporter,
        };
        let resolved = Kind::resolve(self.kind, &self.params, &outside)?;
        Ok(resolved.as_ref().map(to_value).transpose()?)
    }
}

impl From<CanonicalError> for StageError {
    fn from(error: CanonicalError) -> Self {
        Self::invalid(error.to_string())
    }
}

/// The kinds that a program knows.
#[derive(Clone, Copy)]
pub struct Kinds(&'static [&'static dyn AnyKind]);

impl Kinds {
    /// These kinds.
    pub const fn new(kinds: &'static [&'static dyn AnyKind]) -> Self {
        Self(kinds)
    }

    /// The kind of this name.
    pub fn get(self, name: &str) -> Option<&'static dyn AnyKind> {
        self.iter().find(|kind| kind.name() == name)
    }

    /// All of them, in their order.
    pub fn iter(self) -> impl Iterator<Item = &'static dyn AnyKind> {
        self.0.iter().copied()
    }

    /// The schemas of all kinds.
    pub fn catalogue(self) -> Catalogue {
        Catalogue::of(self.iter())
    }
}

/// Whether all params in a stage have values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamValues {
    /// All have.
    All,
    /// Some have; what is wrong with the others is reported.
    Some,
}

/// The schemas of kinds.
pub struct Catalogue {
    kinds: BTreeMap<&'static str, (KindSchemas, Vec<String>)>,
    definitions: Definitions,
}

impl Catalogue {
    /// The schemas of these kinds. To make them all takes longer than to read most pipelines.
    pub fn of(kinds: impl Iterator<Item = &'static dyn AnyKind>) -> Self {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let mut schemas = BTreeMap::new();
        for kind in kinds {
            schemas
                .entry(kind.name())
                .or_insert_with(|| kind.schemas(&mut generator));
        }
        let definitions = generator.take_definitions(true);
        let kinds = schemas.into_iter().map(|(name, schemas)| {
            let settings = schema::keys(&definitions, schemas.settings.as_value());
            let settings = settings.into_iter().map(str::to_owned).collect();
            (name, (schemas, settings))
        });
        Self {
            kinds: kinds.collect(),
            definitions,
        }
    }

    /// The schemas of a kind.
    pub fn get(&self, kind: &str) -> Option<&KindSchemas> {
        self.kinds.get(kind).map(|(schemas, _)| schemas)
    }

    /// What the schemas' `$ref`s name, by name.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// Reads what stands below the kind of a stage: its parameters and, side by side with them, the kind's
    /// settings. Reports everything that does not fit.
    ///
    /// # Errors
    /// The names of stages that are in it all the same; this is all that is told where not every param has a
    /// value.
    pub fn read(
        &self,
        stage: &StageText<'_>,
        body: &Node,
        values: ParamValues,
        problems: &mut Vec<Diagnostic>,
    ) -> Result<Arc<dyn AnyParams>, Vec<NamedInput>> {
        let Some(entries) = body.entries() else {
            let message = format!(
                "`{}` wants a map of its parameters, found {}",
                stage.kind.name(),
                body.describe()
            );
            problems.push(
                Diagnostic::error("wrong-type", body.span, message)
                    .help(format!("an example: {}", stage.kind.example().trim())),
            );
            return Err(Vec::new());
        };
        let Some((schemas, names)) = self.kinds.get(stage.kind.name()) else {
            return Err(Vec::new());
        };
        let (settings, params): (Vec<Entry>, Vec<Entry>) = entries
            .iter()
            .cloned()
            .partition(|entry| names.contains(&entry.key));
        let settings = Node::map(stage.kind_span, settings);
        let params = Node::map(stage.kind_span, params);
        let also_known: Vec<&str> = names.iter().map(String::as_str).collect();
        let check = |schema: &Schema, also_known, node| {
            schema::validate(
                &self.definitions,
                schema.as_value(),
                also_known,
                stage.kind.name(),
                node,
            )
        };
        let mut found = check(&schemas.params, also_known.as_slice(), &params);
        if !also_known.is_empty() {
            let settings = check(&schemas.settings, &[], &settings);
            found.problems.extend(settings.problems);
        }
        let missing = |problem: &&mut Diagnostic| {
            problem.code == "missing-key" && problem.span == Some(stage.kind_span)
        };
        if let Some(help) = found
            .problems
            .iter_mut()
            .rfind(missing)
            .and_then(|last| last.help.as_mut())
        {
            help.push_str("; an example: ");
            help.push_str(stage.kind.example().trim());
        }
        if !found.problems.is_empty() || values == ParamValues::Some {
            problems.extend(found.problems);
            return Err(found.inputs);
        }
        match stage.kind.read(&params, &settings) {
            Ok(params) => Ok(params),
            Err(error) => {
                let span = error.span.unwrap_or(stage.kind_span);
                problems.push(
                    Diagnostic::error("bad-value", span, error.message).maybe_help(error.help),
                );
                Err(found.inputs)
            }
        }
    }
}
