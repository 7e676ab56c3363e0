/*
 * heap.h - the first few of many items, in descending order of keys; ties go
 * to the lower id.
 *
 * The heap holds the first of the items offered so far, with the last of them
 * at its root. A new item replaces the root if it comes before it.
 */
#ifndef SQS_HEAP_H
#define SQS_HEAP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct sqs_ranked {
    double key;
    uint32_t id;
} sqs_ranked;

/* Whether a comes before b. */
static inline bool sqs_ahead(sqs_ranked a, sqs_ranked b)
{
    return a.key > b.key || (a.key == b.key && a.id < b.id);
}

/* Replaces the root with an item, and sifts it down. */
static inline void sqs_heap_replace_root(sqs_ranked *heap, uint32_t n,
                                         sqs_ranked item)
{
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= n)
            break;
        if (child + 1 < n && sqs_ahead(heap[child], heap[child + 1]))
            child++;
        if (sqs_ahead(heap[child], item))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = item;
}

/* Offers an item to a heap of *n items that holds at most `capacity` > 0. */
static inline void sqs_heap_offer(sqs_ranked *heap, uint32_t *n,
                                  uint32_t capacity, sqs_ranked item)
{
    if (*n == capacity) {
        if (sqs_ahead(item, heap[0]))
            sqs_heap_replace_root(heap, *n, item);
        return;
    }
    uint32_t at = (*n)++;
    while (at > 0 && sqs_ahead(heap[(at - 1) / 2], item)) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = item;
}

#endif /* SQS_HEAP_H */
