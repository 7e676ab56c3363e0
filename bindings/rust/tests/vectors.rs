//! The golden vectors of ../../tests/vectors, except those with a prior or with rows
//! of another type: counts of logits, rounds, and malformed packets.

use sqs::{Codec, Coding, Distribution, Keep, Round};
use std::collections::HashMap;
use std::iter::Peekable;
use std::str::Chars;

/// The part of JSON that the vectors use.
#[derive(Clone, Debug)]
enum Json {
    List(Vec<Json>),
    Map(HashMap<String, Json>),
    Text(String),
    Word(String),
}

fn parse(from: &mut Peekable<Chars>) -> Json {
    match skip(from, |c| c.is_whitespace() || ",:".contains(c)) {
        '[' => Json::List(parse_until(from, ']')),
        '{' => {
            let items = parse_until(from, '}');
            let pairs = items.chunks(2).map(|pair| (pair[0].text().into(), pair[1].clone()));
            Json::Map(pairs.collect())
        }
        '"' => {
            let text = from.by_ref().take_while(|&c| c != '"').collect();
            Json::Text(text)
        }
        first => {
            let mut word = String::from(first);
            while let Some(c) = from.next_if(|c| c.is_alphanumeric() || "+-.".contains(*c)) {
                word.push(c);
            }
            Json::Word(word)
        }
    }
}

fn skip(from: &mut Peekable<Chars>, what: impl Fn(char) -> bool) -> char {
    from.find(|&c| !what(c)).expect("more JSON")
}

fn parse_until(from: &mut Peekable<Chars>, end: char) -> Vec<Json> {
    let mut items = Vec::new();
    loop {
        while from.next_if(|c| c.is_whitespace() || ",:".contains(*c)).is_some() {}
        if from.next_if_eq(&end).is_some() {
            return items;
        }
        items.push(parse(from));
    }
}

impl Json {
    fn get(&self, name: &str) -> &Json {
        let Json::Map(map) = self else { panic!("{name} of {self:?}") };
        &map[name]
    }

    fn text(&self) -> &str {
        let Json::Text(text) = self else { panic!("{self:?} is no text") };
        text
    }

    fn list(&self) -> &[Json] {
        let Json::List(list) = self else { panic!("{self:?} is no list") };
        list
    }

    fn number(&self) -> f64 {
        let Json::Word(word) = self else { panic!("{self:?} is no number") };
        word.parse().expect("a number")
    }

    fn int(&self) -> u32 {
        self.number() as u32
    }

    fn ints(&self) -> Vec<u32> {
        self.list().iter().map(Json::int).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        let digits = self.text().as_bytes().chunks(2);
        let pairs = digits.map(|pair| std::str::from_utf8(pair).expect("digits"));
        pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
    }
}

fn cases(name: &str) -> Vec<Json> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors");
    let text = std::fs::read_to_string(format!("{root}/{name}.json")).expect("vectors");
    parse(&mut text.chars().peekable()).get("cases").list().to_vec()
}

fn codec(case: &Json, coding: &str) -> Codec {
    let coding = match coding {
        "bitpack" => Coding::Bitpack,
        "enumerative" => Coding::Enumerative,
        _ => Coding::Entropy,
    };
    Codec::new(case.get("vocab_size").int(), case.get("resolution").int(), coding).expect("a codec")
}

fn distribution(case: &Json) -> Distribution {
    Distribution::new(case.get("token_ids").ints(), case.get("counts").ints()).expect("one")
}

fn round<'a>(distributions: impl Iterator<Item = &'a Json>, tokens: &Json) -> Round {
    let mut round = Round::default();
    for (q, token) in distributions.zip(tokens.ints()) {
        let q = distribution(q);
        let position = q.token_ids().iter().position(|&id| id == token);
        round.push(&q, position.expect("a token that was kept") as u32);
    }
    assert_eq!(round.tokens(), tokens.ints());
    round
}

/// No round of the vectors has more tokens.
const MOST: u32 = 1 << 20;

#[test]
fn logits_become_the_same_counts() {
    for case in cases("distributions") {
        let (seed, slope) = (case.get("seed").int(), case.get("slope").int());
        let logit = |i: u32| {
            let r = (7919 * u64::from(i) + 104_729 * u64::from(seed)) % 4093;
            let bits = u32::BITS - i.leading_zeros();
            (r * r / 1024) as f32 / 1024.0 - (slope * bits) as f32
        };
        let logits: Vec<f32> = (0..case.get("vocab_size").int()).map(logit).collect();
        let [rule, parameter] = case.get("keep").list() else { panic!("no rule") };
        let keep = match rule.text() {
            "top_k" => Keep::TopK(parameter.int()),
            _ => Keep::Threshold(parameter.number()),
        };
        let codec = codec(&case, "entropy");
        let q = codec.quantize(&logits, keep, case.get("temperature").number());
        let (q, golden) = (q.expect("a distribution"), distribution(&case));
        assert_eq!((q.token_ids(), q.counts()), (golden.token_ids(), golden.counts()));
    }
}

#[test]
fn rounds_have_the_same_bytes() {
    for case in cases("rounds") {
        let round = round(case.get("distributions").list().iter(), case.get("tokens"));
        let Json::Map(packets) = case.get("packets") else { panic!("no packets") };
        for (coding, packet) in packets {
            let (codec, packet) = (codec(&case, coding), packet.bytes());
            assert_eq!(codec.encode(&round), Ok(packet.clone()));
            assert_eq!(codec.decode(&packet, MOST), Ok(round.clone()));
        }
    }
}

#[test]
fn malformed_rounds_are_refused() {
    for case in cases("malformed").iter().filter(|case| case.get("kind").text() == "round") {
        let codec = codec(case, case.get("coding").text());
        assert!(codec.decode(&case.get("packet").bytes(), MOST).is_err(), "{case:?}");
    }
}

#[test]
#[should_panic(expected = "draws must be in [0, 1)")]
fn a_draw_that_is_nan_is_refused() {
    let codec = Codec::new(4, 100, Coding::Entropy).unwrap();
    let _ = codec.verify(&Round::default(), &[0.0; 4], 1.0, &[f64::NAN]);
}
