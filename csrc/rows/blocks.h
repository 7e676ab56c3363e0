/*
 * blocks.h - operations of races on blocks, and the rounding of weights to
 * whole units, which don't depend on the type of values. The file that
 * includes this defines the instruction set.
 */

/* Rounds weights from 0 to 1 to whole units, ties to even. Above SQS_WHOLE,
 * floats are whole units already. Below, adding SQS_WHOLE rounds them. */
TARGET static inline vec_type vec_whole(vec_type w)
{
    vec_type from = vec_set(SQS_WHOLE), low = vec_min(w, from);
    vec_type whole = vec_minus(low, vec_set(-SQS_WHOLE));
    return vec_minus(w, vec_minus(low, vec_minus(whole, from)));
}

/* Writes words 64 i to 64 i + 63 of stream 0. */
TARGET static void draw_words(const sqs_numbers *numbers, uint32_t i,
                              uint32_t words[SQS_WORDS])
{
    uint32_t c0[SQS_LANES], c1[SQS_LANES], c2[SQS_LANES], c3[SQS_LANES];
    uint32_t k0 = numbers->key[0], k1 = numbers->key[1];
    SQS_VECTORS
    for (uint32_t l = 0; l < SQS_LANES; l++) {
        c0[l] = SQS_LANES * i + l;
        c1[l] = 0;
        c2[l] = numbers->high[0];
        c3[l] = numbers->high[1];
    }
    for (uint32_t round = 0; round < SQS_PHILOX_ROUNDS; round++) {
        SQS_VECTORS
        for (uint32_t l = 0; l < SQS_LANES; l++) {
            uint64_t p = (uint64_t)SQS_PHILOX_M0 * c0[l];
            uint64_t q = (uint64_t)SQS_PHILOX_M1 * c2[l];
            c0[l] = (uint32_t)(q >> 32) ^ c1[l] ^ k0;
            c2[l] = (uint32_t)(p >> 32) ^ c3[l] ^ k1;
            c1[l] = (uint32_t)q;
            c3[l] = (uint32_t)p;
        }
        k0 += SQS_PHILOX_W0;
        k1 += SQS_PHILOX_W1;
    }
    memcpy(words, c0, sizeof c0);
    memcpy(words + SQS_LANES, c1, sizeof c1);
    memcpy(words + 2 * SQS_LANES, c2, sizeof c2);
    memcpy(words + 3 * SQS_LANES, c3, sizeof c3);
}

/* Half of each word as a float: without the lowest bit it fits an int32_t,
 * which vector units can convert. */
TARGET static inline vec_type halve_words(const uint32_t *words)
{
    float halves[SQS_LANES];
    SQS_VECTORS
    for (uint32_t i = 0; i < SQS_LANES; i++)
        halves[i] = (float)(int32_t)(words[i] >> 1);
    return vec_load(halves);
}

TARGET static uint32_t first_low(const float *lows, uint32_t from, uint32_t n,
                                 float bound)
{
    vec_type most = vec_set(bound);
    uint32_t first = ~0u << from % SQS_LANES;
    for (uint32_t i = from - from % SQS_LANES; i < n; i += SQS_LANES) {
        uint32_t mask = vec_mask_from(most, vec_load(lows + i)) & first;
        if (mask != 0)
            return i + sqs_lowest_bit(mask);
        first = ~0u;
    }
    return n;
}

TARGET static uint32_t first_least(const float *lows, uint32_t n)
{
    vec_type low = vec_load(lows);
    for (uint32_t i = SQS_LANES; i < n; i += SQS_LANES)
        low = vec_min(low, vec_load(lows + i));
    float of_lane[SQS_LANES], least;
    vec_store(of_lane, low);
    least = of_lane[0];
    for (uint32_t i = 1; i < SQS_LANES; i++)
        least = of_lane[i] < least ? of_lane[i] : least;
    return first_low(lows, 0, n, least);
}
