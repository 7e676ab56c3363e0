//! The part of `sqs.h` that the safe layer uses; it is documented there.
#![allow(missing_docs)]

use core::ffi::{c_char, c_int, c_void};

pub const MAX_RESOLUTION: u64 = 1 << 16;
pub const MAX_ROUND: usize = 256;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Codec {
    pub vocab_size: u32,
    pub resolution: u32,
    pub coding: u32,
    pub prior: *const c_void,
}

#[repr(C)]
pub struct Rows {
    pub values: *const c_void,
    pub dtype: u32,
    pub isa: u32,
    pub n: u32,
    pub width: u32,
    pub stride: usize,
}

#[repr(C)]
pub struct Keep {
    pub most: u32,
    pub least: f64,
}

#[repr(C)]
pub struct SparseRoom {
    pub token_ids: *mut u32,
    pub counts: *mut u32,
    pub survivors: *mut u32,
    pub done: u32,
}

#[repr(C)]
pub struct SparseRows {
    pub length: u32,
    pub token_ids: *const u32,
    pub counts: *const u32,
    pub survivors: *const u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub accepted: u32,
    pub token: u32,
    pub done: u32,
}

extern "C" {
    pub fn sqs_status_text(status: c_int) -> *const c_char;
    pub fn sqs_find_isa(isa: c_int) -> c_int;
    pub fn sqs_check_codec(codec: *const Codec) -> c_int;
    pub fn sqs_max_survivors(codec: *const Codec) -> u32;
    pub fn sqs_quantize_scratch(codec: *const Codec) -> usize;
    pub fn sqs_quantize_logits(
        codec: *const Codec,
        logits: *const Rows,
        temperature: f64,
        keep: *const Keep,
        scratch: *mut c_void,
        to: *mut SparseRoom,
        dropped_mass: *mut f64,
    ) -> c_int;
    pub fn sqs_sample(counts: *const u32, survivors: u32, number: u32) -> u32;
    pub fn sqs_encode_round_bound(codec: *const Codec, length: u32, survivors: u32) -> usize;
    pub fn sqs_encode_round(
        codec: *const Codec,
        round: *const SparseRows,
        positions: *const u32,
        packet: *mut u8,
        capacity: usize,
        size: *mut usize,
    ) -> c_int;
    pub fn sqs_max_round_survivors(codec: *const Codec, size: usize) -> u32;
    pub fn sqs_decode_round(
        codec: *const Codec,
        packet: *const u8,
        size: usize,
        most: u32,
        to: *mut SparseRoom,
        positions: *mut u32,
    ) -> c_int;
    pub fn sqs_verify_scratch(target: *const Rows) -> usize;
    pub fn sqs_verify_logits(
        round: *const SparseRows,
        positions: *const u32,
        target: *const Rows,
        temperature: f64,
        draws: *const f64,
        scratch: *mut c_void,
        verdict: *mut Verdict,
    ) -> c_int;
}
