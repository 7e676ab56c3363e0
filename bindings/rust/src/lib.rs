//! The SQS codec core: logits to counts, counts to bytes, and back.
//!
//! A safe layer over `sqs.h` for drafting, sending and verifying rounds, which
//! allocates all memory. [`sys`] has the functions of `sqs.h` themselves.
//!
//! ```
//! use sqs::{Codec, Coding, Keep, Round};
//!
//! let codec = Codec::new(4, 100, Coding::Entropy)?;
//! let q = codec.quantize(&[4.0, 3.0, 2.0, 1.0], Keep::TopK(2), 1.0)?;
//! assert_eq!((q.token_ids(), q.counts()), (&[0, 1][..], &[73, 27][..]));
//!
//! let mut round = Round::default();
//! round.push(&q, q.sample(80)); // 0 .. 72 is token 0, 73 .. 99 is token 1
//! let packet = codec.encode(&round)?;
//! assert_eq!(codec.decode(&packet, 4)?, round);
//!
//! let target = [4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 9.0];
//! let verdict = codec.verify(&round, &target, 1.0, &[0.5, 0.5])?;
//! assert_eq!((verdict.accepted, verdict.token), (1, 3));
//! # Ok::<(), sqs::Error>(())
//! ```
#![no_std]
#![warn(missing_docs)]
#![forbid(unsafe_op_in_unsafe_fn)]

extern crate alloc;

use alloc::{vec, vec::Vec};
use core::ffi::{c_int, c_void, CStr};
use core::{fmt, ptr};

pub mod sys;
pub use sys::Verdict;

/// A status other than `SQS_OK`, by its number in `sqs.h`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error(pub c_int);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // SAFETY: the text is never null, ends with a zero and lasts for ever.
        let text = unsafe { CStr::from_ptr(sys::sqs_status_text(self.0)) };
        f.write_str(text.to_str().unwrap_or("?"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Error({}: {self})", self.0)
    }
}

impl core::error::Error for Error {}

fn check(status: c_int) -> Result<(), Error> {
    if status == 0 {
        Ok(())
    } else {
        Err(Error(status))
    }
}

/// Memory as `malloc` aligns it.
fn scratch(size: usize) -> Vec<u128> {
    vec![0; size.div_ceil(16)]
}

/// How a distribution is written as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Fixed-width fields.
    Bitpack = 0,
    /// Exact ranks.
    Enumerative = 1,
    /// A model fitted to language models.
    Entropy = 2,
}

/// Which tokens to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// This many of the most probable tokens.
    TopK(u32),
    /// Tokens of at least this probability.
    Threshold(f64),
}

impl From<Keep> for sys::Keep {
    fn from(keep: Keep) -> Self {
        let (most, least) = match keep {
            Keep::TopK(k) => (k, 0.0),
            Keep::Threshold(beta) => (u32::MAX, beta),
        };
        Self { most, least }
    }
}

/// Tokens and their counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    token_ids: Vec<u32>,
    counts: Vec<u32>,
}

impl Distribution {
    /// A distribution of ascending tokens, or `None` if no codec allows it.
    pub fn new(token_ids: Vec<u32>, counts: Vec<u32>) -> Option<Self> {
        let sum: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        let ok = token_ids.len() == counts.len()
            && token_ids.windows(2).all(|pair| pair[0] < pair[1])
            && (1..=sys::MAX_RESOLUTION).contains(&sum)
            && !counts.contains(&0);
        ok.then_some(Self { token_ids, counts })
    }

    /// The tokens, ascending.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Their counts, all 1 or more; they sum to the codec's resolution.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Samples a position; `number` is uniform below the sum of the counts.
    ///
    /// # Panics
    ///
    /// If the number isn't below the sum of the counts.
    pub fn sample(&self, number: u32) -> u32 {
        let sum: u32 = self.counts.iter().sum();
        assert!(number < sum, "number {number} must be below the sum of the counts, {sum}");
        let k = self.counts.len() as u32;
        // SAFETY: the number names one of k counts.
        unsafe { sys::sqs_sample(self.counts.as_ptr(), k, number) }
    }
}

/// Distributions one after the other, and the position of a drafted token in each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    token_ids: Vec<u32>,
    counts: Vec<u32>,
    survivors: Vec<u32>,
    positions: Vec<u32>,
}

impl Round {
    /// Appends a distribution and the position of the token sampled from it.
    ///
    /// # Panics
    ///
    /// If the distribution has no such position.
    pub fn push(&mut self, q: &Distribution, position: u32) {
        assert!((position as usize) < q.counts.len(), "position {position} is outside the support");
        self.token_ids.extend(&q.token_ids);
        self.counts.extend(&q.counts);
        self.survivors.push(q.counts.len() as u32);
        self.positions.push(position);
    }

    /// The drafted tokens.
    pub fn tokens(&self) -> Vec<u32> {
        let mut start = 0;
        let places = self.survivors.iter().zip(&self.positions);
        places
            .map(|(&k, &position)| {
                start += k as usize;
                self.token_ids[start - k as usize + position as usize]
            })
            .collect()
    }

    /// The round as `sqs.h` reads it.
    fn view(&self) -> sys::SparseRows {
        sys::SparseRows {
            length: self.survivors.len() as u32,
            token_ids: self.token_ids.as_ptr(),
            counts: self.counts.as_ptr(),
            survivors: self.survivors.as_ptr(),
        }
    }
}

/// The settings that both ends share.
#[derive(Clone)]
pub struct Codec {
    c: sys::Codec,
    isa: u32,
}

// SAFETY: nobody writes through the codec's pointer, which is null.
unsafe impl Send for Codec {}
// SAFETY: as above.
unsafe impl Sync for Codec {}

impl Codec {
    /// A codec without a prior, on the fastest instruction set.
    pub fn new(vocab_size: u32, resolution: u32, coding: Coding) -> Result<Self, Error> {
        // SAFETY: it takes any number.
        let isa = unsafe { sys::sqs_find_isa(0) } as u32;
        let coding = coding as u32;
        let c = sys::Codec { vocab_size, resolution, coding, prior: ptr::null() };
        // SAFETY: the fields may hold anything.
        check(unsafe { sys::sqs_check_codec(&c) })?;
        Ok(Self { c, isa })
    }

    fn rows(&self, values: &[f32], n: usize) -> sys::Rows {
        let (width, isa) = (self.c.vocab_size, self.isa);
        let stride = width as usize;
        assert_eq!(values.len(), n * stride, "{n} rows of {stride} logits");
        sys::Rows { values: values.as_ptr().cast(), dtype: 1, isa, n: n as u32, width, stride }
    }

    /// Quantizes the tokens kept from softmax(logits / temperature).
    ///
    /// # Panics
    ///
    /// If the number of logits isn't the vocabulary size.
    pub fn quantize(
        &self,
        logits: &[f32],
        keep: Keep,
        temperature: f64,
    ) -> Result<Distribution, Error> {
        let (row, keep) = (self.rows(logits, 1), sys::Keep::from(keep));
        // SAFETY: both read a codec that has been checked, and nothing else.
        let mut room = scratch(unsafe { sys::sqs_quantize_scratch(&self.c) });
        let most = unsafe { sys::sqs_max_survivors(&self.c) } as usize;
        let (mut token_ids, mut counts) = (vec![0; most], vec![0; most]);
        let mut survivors = 0;
        let mut to = sys::SparseRoom {
            token_ids: token_ids.as_mut_ptr(),
            counts: counts.as_mut_ptr(),
            survivors: &mut survivors,
            done: 0,
        };
        let scratch = room.as_mut_ptr().cast::<c_void>();
        // SAFETY: all buffers have the sizes that the two functions above return.
        check(unsafe {
            let mass = ptr::null_mut();
            sys::sqs_quantize_logits(&self.c, &row, temperature, &keep, scratch, &mut to, mass)
        })?;
        token_ids.truncate(survivors as usize);
        counts.truncate(survivors as usize);
        Ok(Distribution { token_ids, counts })
    }

    /// Encodes a round.
    pub fn encode(&self, round: &Round) -> Result<Vec<u8>, Error> {
        let view = round.view();
        let survivors = round.token_ids.len() as u32;
        // SAFETY: it reads the codec, which has been checked.
        let mut size = unsafe { sys::sqs_encode_round_bound(&self.c, view.length, survivors) };
        let mut packet = vec![0; size];
        let to = packet.as_mut_ptr();
        // SAFETY: the round's arrays are as long as it says, and so is the packet.
        let positions = round.positions.as_ptr();
        check(unsafe { sys::sqs_encode_round(&self.c, &view, positions, to, size, &mut size) })?;
        packet.truncate(size);
        Ok(packet)
    }

    /// Decodes a packet, which may be hostile; `most` limits the sum of support sizes.
    pub fn decode(&self, packet: &[u8], most: u32) -> Result<Round, Error> {
        let (bytes, size) = (packet.as_ptr(), packet.len());
        // SAFETY: it reads the codec, which has been checked.
        let most = most.min(unsafe { sys::sqs_max_round_survivors(&self.c, size) });
        let entries = || vec![0; most as usize];
        let items = || vec![0; sys::MAX_ROUND];
        let (mut token_ids, mut counts) = (entries(), entries());
        let (mut survivors, mut positions) = (items(), items());
        let mut to = sys::SparseRoom {
            token_ids: token_ids.as_mut_ptr(),
            counts: counts.as_mut_ptr(),
            survivors: survivors.as_mut_ptr(),
            done: 0,
        };
        let places = positions.as_mut_ptr();
        // SAFETY: the arrays have the room that sqs.h asks for.
        check(unsafe { sys::sqs_decode_round(&self.c, bytes, size, most, &mut to, places) })?;
        survivors.truncate(to.done as usize);
        positions.truncate(to.done as usize);
        let used = survivors.iter().map(|&k: &u32| k as usize).sum();
        token_ids.truncate(used);
        counts.truncate(used);
        Ok(Round { token_ids, counts, survivors, positions })
    }

    /// Verifies a round with the target's logits.
    ///
    /// # Panics
    ///
    /// If the number of rows or draws isn't the round's length plus one, a draw isn't
    /// in [0, 1), or a token lies outside the vocabulary.
    pub fn verify(
        &self,
        round: &Round,
        logits: &[f32],
        temperature: f64,
        draws: &[f64],
    ) -> Result<Verdict, Error> {
        let (view, n) = (round.view(), round.survivors.len() + 1);
        let rows = self.rows(logits, n);
        assert_eq!(draws.len(), n, "verify needs one draw per token, and one more");
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)), "draws must be in [0, 1)");
        assert!(round.token_ids.iter().all(|&id| id < self.c.vocab_size));
        // SAFETY: it reads the rows' size only.
        let mut room = scratch(unsafe { sys::sqs_verify_scratch(&rows) });
        let mut verdict = Verdict::default();
        // SAFETY: rows, draws and the round have been checked.
        check(unsafe {
            sys::sqs_verify_logits(
                &view,
                round.positions.as_ptr(),
                &rows,
                temperature,
                draws.as_ptr(),
                room.as_mut_ptr().cast(),
                &mut verdict,
            )
        })?;
        Ok(verdict)
    }
}
