//! A small lexicon of English, and phrases built of it.

use crate::data::random::Random;

/// One of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Singular,
    Plural,
}

use Number::{Plural, Singular};

impl Number {
    pub fn draw(random: &mut Random) -> Self {
        match random.below(2) {
            0 => Singular,
            _ => Plural,
        }
    }

    pub fn other(self) -> Self {
        match self {
            Singular => Plural,
            Plural => Singular,
        }
    }

    /// The first of the pair for the singular, the second for the plural.
    pub fn of(self, (singular, plural): (&'static str, &'static str)) -> &'static str {
        match self {
            Singular => singular,
            Plural => plural,
        }
    }
}

/// Words of a sentence, in order.
pub type Words = Vec<&'static str>;

/// Singular and plural.
pub type Noun = (&'static str, &'static str);

pub const MEN: [Noun; 8] = [
    ("boy", "boys"),
    ("man", "men"),
    ("king", "kings"),
    ("actor", "actors"),
    ("uncle", "uncles"),
    ("waiter", "waiters"),
    ("prince", "princes"),
    ("father", "fathers"),
];

pub const WOMEN: [Noun; 8] = [
    ("girl", "girls"),
    ("woman", "women"),
    ("queen", "queens"),
    ("actress", "actresses"),
    ("aunt", "aunts"),
    ("waitress", "waitresses"),
    ("princess", "princesses"),
    ("mother", "mothers"),
];

const OTHERS: [Noun; 8] = [
    ("teacher", "teachers"),
    ("doctor", "doctors"),
    ("artist", "artists"),
    ("engineer", "engineers"),
    ("author", "authors"),
    ("child", "children"),
    ("elephant", "elephants"),
    ("owl", "owls"),
];

pub const THINGS: [Noun; 10] = [
    ("apple", "apples"),
    ("orange", "oranges"),
    ("umbrella", "umbrellas"),
    ("engine", "engines"),
    ("book", "books"),
    ("letter", "letters"),
    ("chair", "chairs"),
    ("box", "boxes"),
    ("bottle", "bottles"),
    ("picture", "pictures"),
];

/// What cannot be counted.
pub const STUFF: [&str; 6] = ["water", "milk", "sand", "rice", "bread", "furniture"];

pub const ADJECTIVES: [&str; 10] = [
    "old", "young", "tall", "small", "angry", "honest", "happy", "polite", "ugly", "elegant",
];

/// How two things are alike, and how one surpasses the other.
pub const COMPARED: [(&str, &str); 6] = [
    ("old", "older"),
    ("young", "younger"),
    ("tall", "taller"),
    ("small", "smaller"),
    ("angry", "angrier"),
    ("happy", "happier"),
];

const PREPOSITIONS: [&str; 6] = ["in", "near", "behind", "under", "above", "beside"];

const PLACES: [&str; 6] = ["garden", "river", "house", "bridge", "station", "tower"];

const ADVERBS: [&str; 6] = ["quietly", "slowly", "again", "today", "suddenly", "there"];

/// The forms of a verb.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    pub base: &'static str,
    pub third: &'static str,
    pub past: &'static str,
    pub participle: &'static str,
    pub ing: &'static str,
}

const fn verb(
    base: &'static str,
    third: &'static str,
    past: &'static str,
    participle: &'static str,
    ing: &'static str,
) -> Verb {
    Verb {
        base,
        third,
        past,
        participle,
        ing,
    }
}

impl Verb {
    /// Its form of the present.
    pub fn present(&self, number: Number) -> &'static str {
        number.of((self.third, self.base))
    }
}

/// Verbs that take no object.
pub const INTRANSITIVE: [Verb; 10] = [
    verb("sleep", "sleeps", "slept", "slept", "sleeping"),
    verb("laugh", "laughs", "laughed", "laughed", "laughing"),
    verb("arrive", "arrives", "arrived", "arrived", "arriving"),
    verb("sneeze", "sneezes", "sneezed", "sneezed", "sneezing"),
    verb("smile", "smiles", "smiled", "smiled", "smiling"),
    verb(
        "disappear",
        "disappears",
        "disappeared",
        "disappeared",
        "disappearing",
    ),
    verb("shiver", "shivers", "shivered", "shivered", "shivering"),
    verb("faint", "faints", "fainted", "fainted", "fainting"),
    verb("fall", "falls", "fell", "fallen", "falling"),
    verb("yawn", "yawns", "yawned", "yawned", "yawning"),
];

/// Verbs that need a person as object.
pub const OF_PERSONS: [Verb; 6] = [
    verb("greet", "greets", "greeted", "greeted", "greeting"),
    verb("thank", "thanks", "thanked", "thanked", "thanking"),
    verb("invite", "invites", "invited", "invited", "inviting"),
    verb("praise", "praises", "praised", "praised", "praising"),
    verb("blame", "blames", "blamed", "blamed", "blaming"),
    verb("forgive", "forgives", "forgave", "forgiven", "forgiving"),
];

/// Verbs that need a thing as object.
pub const OF_THINGS: [Verb; 6] = [
    verb("carry", "carries", "carried", "carried", "carrying"),
    verb(
        "destroy",
        "destroys",
        "destroyed",
        "destroyed",
        "destroying",
    ),
    verb(
        "describe",
        "describes",
        "described",
        "described",
        "describing",
    ),
    verb("choose", "chooses", "chose", "chosen", "choosing"),
    verb("find", "finds", "found", "found", "finding"),
    verb("take", "takes", "took", "taken", "taking"),
];

pub fn person(random: &mut Random) -> Noun {
    let index = random.below(24) as usize;
    [MEN, WOMEN, OTHERS][index / 8][index % 8]
}

pub fn one<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    choices[random.below(choices.len() as u64) as usize]
}

/// `a` or `an`, as the next word wants it.
pub fn article(next: &str) -> &'static str {
    match next.starts_with(['a', 'e', 'i', 'o', 'u']) || next == "honest" {
        true => "an",
        false => "a",
    }
}

/// A determiner, an adjective at times, a noun.
pub fn phrase(random: &mut Random, noun: Noun, number: Number) -> Words {
    let mut rest = Words::new();
    if random.below(3) == 0 {
        rest.push(one(random, &ADJECTIVES));
    }
    rest.push(number.of(noun));
    let determiner = match (random.below(4), number) {
        (0, _) => "the",
        (1, _) => "my",
        (2, Singular) => article(rest[0]),
        (2, Plural) => "some",
        (_, Singular) => one(random, &["this", "that", "every"]),
        (_, Plural) => one(random, &["these", "those", "many"]),
    };
    rest.insert(0, determiner);
    rest
}

/// A person as subject.
pub fn subject(random: &mut Random, number: Number) -> Words {
    let noun = person(random);
    phrase(random, noun, number)
}

/// A place, a manner, or nothing.
pub fn adjunct(random: &mut Random) -> Words {
    match random.below(3) {
        0 => Words::new(),
        1 => vec![one(random, &ADVERBS)],
        _ => place(random),
    }
}

/// A manner or a time.
pub fn adverb(random: &mut Random) -> &'static str {
    one(random, &ADVERBS)
}

/// `near the river`.
pub fn place(random: &mut Random) -> Words {
    vec![one(random, &PREPOSITIONS), "the", one(random, &PLACES)]
}

/// A verb and what it needs.
pub fn predicate(random: &mut Random) -> (Verb, Words) {
    let number = Number::draw(random);
    match random.below(3) {
        0 => (one(random, &INTRANSITIVE), Words::new()),
        1 => {
            let noun = person(random);
            (one(random, &OF_PERSONS), phrase(random, noun, number))
        }
        _ => {
            let noun = one(random, &THINGS);
            (one(random, &OF_THINGS), phrase(random, noun, number))
        }
    }
}
