/*
 * template.h - the loops of kernels.h for one type of values.
 *
 * instances.h includes this once for each type, after defining these macros,
 * which are undefined at the end:
 *   ROW(name)   the instance's own name of function `name`
 *   ELEMENT     the type of the row's values in memory
 *   VALUE       the type used to compare them: double if ELEMENT is double,
 *               otherwise float
 *   FILL        an expression: -infinity as an ELEMENT
 *   LOAD(p)     an expression: the vector of SQS_LANES values at p
 *   ADD(s, p)   an expression: the sums s with the values at p added by lanes
 *   SUMS(name)  operation or type `name` for these sums
 *   VEC(name)   operation or type `name` for vectors of VALUE
 *
 * TARGET and the operations that VEC and SUMS name belong to the instruction
 * set; scalar.c defines what each does.
 */

/* Copies the last n values of a row and pads them, so that whole vectors can
 * be read. */
static void ROW(pad)(const ELEMENT *x, uint32_t n, ELEMENT fill, ELEMENT *to,
                     uint32_t room)
{
    for (uint32_t i = 0; i < room; i++)
        to[i] = i < n ? x[i] : fill;
}

/* Stores the maxima of a group's lanes and returns them. */
TARGET static inline VEC(type) ROW(scan_group)(const ELEMENT *x, VALUE *maxima,
                                               VEC(mask) *finite)
{
    VEC(type) best = LOAD(x);
    *finite = VEC(and_finite)(*finite, best);
    for (uint32_t j = 1; j < SQS_GROUP_VECTORS; j++) {
        VEC(type) v = LOAD(x + j * SQS_LANES);
        *finite = VEC(and_finite)(*finite, v);
        best = VEC(max)(best, v);
    }
    VEC(store)(maxima, best);
    return best;
}

TARGET static double ROW(largest_lane)(VEC(type) best)
{
    VALUE of_lane[SQS_LANES];
    VEC(store)(of_lane, best);
    VALUE largest = -(VALUE)INFINITY;
    for (uint32_t i = 0; i < SQS_LANES; i++)
        largest = of_lane[i] > largest ? of_lane[i] : largest;
    return (double)largest;
}

TARGET static bool ROW(scan)(sqs_scanned *row)
{
    const ELEMENT *x = row->values;
    VALUE *maxima = row->maxima;
    VEC(mask) finite = VEC(true)();
    VEC(type) best = VEC(set)(-(VALUE)INFINITY);
    uint32_t left = row->n;
    for (; left >= SQS_GROUP; left -= SQS_GROUP) {
        best = VEC(max)(best, ROW(scan_group)(x, maxima, &finite));
        x += SQS_GROUP;
        maxima += SQS_LANES;
    }
    if (left > 0) {
        ELEMENT tail[SQS_GROUP];
        ROW(pad)(x, left, FILL, tail, SQS_GROUP);
        best = VEC(max)(best, ROW(scan_group)(tail, maxima, &finite));
    }
    row->max = ROW(largest_lane)(best);
    return VEC(all)(finite);
}

/* 2^((x - max) * by) of SQS_LANES values. */
TARGET static inline vec_type ROW(powers)(const ELEMENT *x, VEC(type) max,
                                          vec_type by)
{
    return vec_exp2(vec_multiply(VEC(minus)(LOAD(x), max), by));
}

TARGET static double ROW(sum_exp2)(const sqs_scanned *row, float scale)
{
    const ELEMENT *x = row->values;
    VEC(type) max = VEC(set)((VALUE)row->max);
    vec_type by = vec_set(scale);
    lanes_type sums = lanes_zero();
    uint32_t left = row->n;
    for (; left >= SQS_LANES; left -= SQS_LANES, x += SQS_LANES)
        sums = vec_add_to(sums, ROW(powers)(x, max, by));
    if (left > 0) {
        ELEMENT tail[SQS_LANES];
        ROW(pad)(x, left, FILL, tail, SQS_LANES);
        sums = vec_add_to(sums, ROW(powers)(tail, max, by));
    }
    return lanes_fold(sums);
}

TARGET static double ROW(weigh)(const sqs_scanned *row, float scale,
                                float *weights)
{
    const ELEMENT *x = row->values;
    VEC(type) max = VEC(set)((VALUE)row->max);
    vec_type by = vec_set(scale);
    lanes_type sums = lanes_zero();
    ELEMENT tail[SQS_LANES];
    for (uint32_t i = 0; i < row->n; i += SQS_LANES, x += SQS_LANES) {
        if (row->n - i < SQS_LANES) {
            ROW(pad)(x, row->n - i, FILL, tail, SQS_LANES);
            x = tail;
        }
        vec_type whole = vec_whole(ROW(powers)(x, max, by));
        vec_store(weights + i, whole);
        sums = vec_add_to(sums, whole);
    }
    return lanes_fold(sums);
}

/* Sums n values by lanes; *low becomes the minimum of each lane and itself. */
TARGET static inline double ROW(sum_run)(const ELEMENT *x, uint32_t n,
                                         VEC(type) *low)
{
    SUMS(type) sums = SUMS(zero)();
    uint32_t left = n;
    for (; left >= SQS_LANES; left -= SQS_LANES, x += SQS_LANES) {
        *low = VEC(min)(*low, LOAD(x));
        sums = ADD(sums, x);
    }
    if (left > 0) {
        ELEMENT tail[SQS_LANES];
        ROW(pad)(x, left, 0, tail, SQS_LANES); /* zeros change no sum */
        *low = VEC(min)(*low, LOAD(tail));
        sums = ADD(sums, tail);
    }
    return SUMS(fold)(sums);
}

TARGET static double ROW(least_lane)(VEC(type) low)
{
    VALUE of_lane[SQS_LANES];
    VEC(store)(of_lane, low);
    VALUE least = of_lane[0];
    for (uint32_t i = 1; i < SQS_LANES; i++)
        least = of_lane[i] < least ? of_lane[i] : least;
    return (double)least;
}

TARGET static double ROW(sum_values)(const void *values, uint32_t n,
                                     double *least)
{
    VEC(type) low = VEC(set)(0);
    double sum = ROW(sum_run)(values, n, &low);
    *least = ROW(least_lane)(low);
    return sum;
}

TARGET static void ROW(sum_blocks)(const void *values, uint32_t n,
                                   double *sums, double *least)
{
    const ELEMENT *x = values;
    VEC(type) low = VEC(set)(0);
    for (; n > SQS_BLOCK; n -= SQS_BLOCK, x += SQS_BLOCK)
        *sums++ = ROW(sum_run)(x, SQS_BLOCK, &low);
    *sums = ROW(sum_run)(x, n, &low);
    *least = ROW(least_lane)(low);
}

/* How many of n values are at least t; n is a multiple of SQS_LANES. */
TARGET static uint32_t ROW(count)(const VALUE *values, uint32_t n, VALUE t)
{
    VEC(type) bound = VEC(set)(t);
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i += SQS_LANES)
        count += VEC(count_from)(VEC(load)(values + i), bound);
    return count;
}

/*
 * A lower bound on the k-th largest of n values, n a multiple of SQS_LANES.
 * Bisection starts from `low`, which at least k values reach, and ends at a
 * number that k to k + slack values reach. If ties leave no such number, it
 * ends at the k-th largest value. Each step halves the remaining floats, so
 * there are at most as many steps as a VALUE has bits. The first interval ends
 * at the largest float instead of the row's maximum: that is a double, and
 * where subnormals are flushed, values may exceed it.
 */
TARGET static VALUE ROW(find_bound)(const VALUE *values, uint32_t n,
                                    uint32_t k, uint32_t slack, VALUE low)
{
    uint64_t from = VEC(order)(low), to = VEC(order)((VALUE)INFINITY) - 1;
    while (from < to) {
        uint64_t middle = to - (to - from) / 2;
        uint32_t count = ROW(count)(values, n, VEC(in_order)(middle));
        if (count < k) {
            to = middle - 1;
            continue;
        }
        from = middle;
        if (count <= k + slack)
            break;
    }
    return VEC(in_order)(from);
}

/* A lower bound on the row's k-th largest value that isn't masked. */
TARGET static VALUE ROW(bound_top)(const sqs_scanned *row, uint32_t k)
{
    const VALUE *maxima = row->maxima;
    VALUE bins[SQS_BINS];
    uint32_t n = sqs_maxima(row->n);
    if (k <= SQS_BINS / 2 && n > SQS_BINS) {
        memcpy(bins, maxima, sizeof bins);
        for (uint32_t i = SQS_BINS; i < n; i += SQS_LANES) {
            VALUE *bin = bins + i % SQS_BINS;
            VEC(store)(bin, VEC(max)(VEC(load)(bin), VEC(load)(maxima + i)));
        }
        maxima = bins;
        n = SQS_BINS;
    }
    VALUE lowest = (VALUE)row->lowest;
    if (ROW(count)(maxima, n, lowest) < k) /* too few maxima */
        return lowest;
    return ROW(find_bound)(maxima, n, k, k / 8, lowest);
}

/* Appends to n selected tokens those of a group that are at least `bound`, and
 * returns the new n. `first` is the group's first token. */
TARGET static uint32_t ROW(select_group)(const ELEMENT *x, uint32_t first,
                                         VEC(type) bound, uint32_t n,
                                         uint32_t *ids, VALUE *values)
{
    for (uint32_t j = 0; j < SQS_GROUP; j += SQS_LANES) {
        VEC(type) v = LOAD(x + j);
        uint32_t mask = VEC(mask_from)(v, bound);
        if (mask == 0)
            continue;
        VALUE of_lane[SQS_LANES];
        VEC(store)(of_lane, v);
        for (; mask != 0; mask &= mask - 1) {
            uint32_t lane = sqs_lowest_bit(mask);
            ids[n] = first + j + lane;
            values[n++] = of_lane[lane];
        }
    }
    return n;
}

/* Selects all values from `bound` on, into to->ids and to->work. */
TARGET static uint32_t ROW(select)(const sqs_scanned *row, VALUE bound,
                                   const sqs_selected *to)
{
    const ELEMENT *x = row->values;
    const VALUE *maxima = row->maxima;
    VEC(type) from = VEC(set)(bound);
    uint32_t n = 0;
    for (uint32_t i = 0; i < row->n; i += SQS_GROUP, maxima += SQS_LANES) {
        if (VEC(mask_from)(VEC(load)(maxima), from) == 0)
            continue;
        const ELEMENT *group = x + i;
        ELEMENT tail[SQS_GROUP];
        if (row->n - i < SQS_GROUP) {
            ROW(pad)(group, row->n - i, FILL, tail, SQS_GROUP);
            group = tail;
        }
        n = ROW(select_group)(group, i, from, n, to->ids, to->work);
    }
    return n;
}

/* Keeps the k largest of n > k selected tokens, which are all at least
 * `bound`. It never keeps more, even if only some comparisons flush
 * subnormals. */
TARGET static uint32_t ROW(keep_top)(uint32_t k, uint32_t n, VALUE bound,
                                     const sqs_selected *to)
{
    VALUE *values = to->work;
    uint32_t padded = (n + SQS_LANES - 1) / SQS_LANES * SQS_LANES;
    for (uint32_t i = n; i < padded; i++)
        values[i] = -(VALUE)INFINITY;
    VALUE last = ROW(find_bound)(values, padded, k, 0, bound);
    uint32_t spare = ROW(count)(values, padded, last) - k;
    /* Drop the highest ids of the ties. */
    for (uint32_t i = n; i > 0 && spare > 0; i--)
        if (values[i - 1] == last) {
            values[i - 1] = -(VALUE)INFINITY;
            spare--;
        }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n && kept < k; i++) {
        to->ids[kept] = to->ids[i];
        values[kept] = values[i];
        kept += values[i] >= last;
    }
    return kept;
}

/* Widens the values of n selected tokens. */
static uint32_t ROW(give_values)(uint32_t n, const sqs_selected *to)
{
    const VALUE *values = to->work;
    for (uint32_t i = 0; i < n; i++)
        to->values[i] = (double)values[i];
    return n;
}

static uint32_t ROW(select_top)(const sqs_scanned *row, uint32_t k,
                                const sqs_selected *to)
{
    VALUE bound = ROW(bound_top)(row, k);
    uint32_t n = ROW(select)(row, bound, to);
    if (n > k)
        n = ROW(keep_top)(k, n, bound, to);
    return ROW(give_values)(n, to);
}

static uint32_t ROW(select_from)(const sqs_scanned *row, double bound,
                                 const sqs_selected *to)
{
    return ROW(give_values)(ROW(select)(row, (VALUE)bound, to), to);
}

/* Stores the maxima of SQS_LANES blocks of a race and returns them. */
TARGET static inline VEC(type) ROW(scan_races)(const ELEMENT *x, VALUE *maxima,
                                               VEC(mask) *finite)
{
    VEC(type) best[SQS_LANES];
    for (uint32_t i = 0; i < SQS_LANES; i++, x += SQS_RACE) {
        VEC(type) a = LOAD(x), b = LOAD(x + SQS_LANES);
        VEC(type) c = LOAD(x + 2 * SQS_LANES), d = LOAD(x + 3 * SQS_LANES);
        *finite = VEC(and_finite)(VEC(and_finite)(*finite, a), b);
        *finite = VEC(and_finite)(VEC(and_finite)(*finite, c), d);
        best[i] = VEC(max)(VEC(max)(a, b), VEC(max)(c, d));
    }
    VEC(type) largest = VEC(largest_of)(best);
    VEC(store)(maxima, largest);
    return largest;
}

TARGET static bool ROW(scan_blocks)(sqs_scanned *row)
{
    const ELEMENT *x = row->values;
    VALUE *maxima = row->maxima;
    VEC(mask) finite = VEC(true)();
    VEC(type) best = VEC(set)(-(VALUE)INFINITY);
    uint32_t left = row->n;
    for (; left >= SQS_LANES * SQS_RACE; left -= SQS_LANES * SQS_RACE) {
        best = VEC(max)(best, ROW(scan_races)(x, maxima, &finite));
        x += SQS_LANES * SQS_RACE;
        maxima += SQS_LANES;
    }
    if (left > 0) {
        ELEMENT tail[SQS_LANES * SQS_RACE];
        ROW(pad)(x, left, FILL, tail, SQS_LANES * SQS_RACE);
        best = VEC(max)(best, ROW(scan_races)(tail, maxima, &finite));
    }
    row->max = ROW(largest_lane)(best);
    return VEC(all)(finite);
}

TARGET static void ROW(bound_blocks)(const sqs_scanned *row, float scale,
                                     const sqs_numbers *numbers,
                                     uint32_t *words, float *lows)
{
    const VALUE *maxima = row->maxima;
    VEC(type) max = VEC(set)((VALUE)row->max);
    vec_type by = vec_set(scale), floor = vec_set(SQS_MIN_EXPONENT_F32);
    for (uint32_t i = 0; i < sqs_races(row->n); i += SQS_LANES) {
        if (i % SQS_WORDS == 0)
            draw_words(numbers, i / SQS_WORDS, words + i);
        vec_type t = VEC(minus)(VEC(load)(maxima + i), max);
        t = vec_max(vec_multiply(t, by), floor);
        t = vec_exp2(vec_minus(vec_set(0), t));
        t = vec_multiply(t, vec_set(2 * SQS_LEAST_OF_WORD));
        vec_store(lows + i, vec_multiply(t, halve_words(words + i)));
    }
}

TARGET static uint64_t ROW(find_from)(const void *values, uint32_t n,
                                      double bound)
{
    const ELEMENT *x = values;
    VEC(type) from = VEC(set)((VALUE)bound);
    ELEMENT tail[SQS_RACE];
    if (n < SQS_RACE) { /* the return clears the bits of the padding */
        ROW(pad)(x, n, FILL, tail, SQS_RACE);
        x = tail;
    }
    uint64_t mask = 0;
    for (uint32_t i = 0; i < SQS_RACE; i += SQS_LANES)
        mask |= (uint64_t)VEC(mask_from)(LOAD(x + i), from) << i;
    return mask & ~(uint64_t)0 >> (SQS_RACE - n);
}

#undef ROW
#undef ELEMENT
#undef VALUE
#undef FILL
#undef LOAD
#undef ADD
#undef SUMS
#undef VEC
