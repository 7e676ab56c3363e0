/*
 * row_template.h - the passes over a whole row, once per element type.
 *
 * Include with
 *   ROW_T        float or double, the type of the row's values
 *   ROW(name)    the name of the instance of function `name`
 *   ROW_DIFF_F32 an expression: x - y rounded to float, for x, y of ROW_T
 * defined; they are undefined at the end. A variant for an instruction set
 * replaces these four functions and nothing else.
 */

/* Finds the first largest value. SQS_NOT_FINITE for a NaN or +infinity. */
static sqs_status ROW(find_max)(const ROW_T *row, uint32_t n, ROW_T *max,
                                uint32_t *argmax)
{
    ROW_T best = (ROW_T)-INFINITY;
    uint32_t at = 0;
    bool finite = true;
    for (uint32_t i = 0; i < n; i++) {
        finite &= row[i] < (ROW_T)INFINITY;
        if (row[i] > best) {
            best = row[i];
            at = i;
        }
    }
    *max = best;
    *argmax = at;
    return finite ? SQS_OK : SQS_NOT_FINITE;
}

/* terms[i] = 2^((row[i] - max) * scale) in single precision; returns their
 * sum. */
static double ROW(make_terms)(const ROW_T *row, uint32_t n, ROW_T max,
                              float scale, double *terms)
{
    for (uint32_t i = 0; i < n; i++)
        terms[i] = (double)sqs_exp2_f32(ROW_DIFF_F32(row[i], max) * scale);
    return sqs_sum(terms, n);
}

/* Heaps up the `capacity` best values that are above `floor`; returns how
 * many there were. */
static uint32_t ROW(find_best)(const ROW_T *row, uint32_t n, ROW_T floor,
                               uint32_t capacity, sqs_ranked *heap)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!(row[i] > floor))
            continue;
        sqs_ranked item = {(double)row[i], i};
        if (found == capacity && !(item.key > heap[0].key))
            continue;
        sqs_heap_offer(heap, &found, capacity, item);
    }
    return found;
}

/* Lists, ascending, the ids at least as good as `last`. */
static uint32_t ROW(list_through)(const ROW_T *row, uint32_t n,
                                  sqs_ranked last, uint32_t *ids)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < n; i++) {
        sqs_ranked item = {(double)row[i], i};
        if (!sqs_ahead(last, item))
            ids[found++] = i;
    }
    return found;
}

#undef ROW_T
#undef ROW
#undef ROW_DIFF_F32
