"""A heap of keys and ids, the worst at the root, as in ``csrc/quantize/heap.h``."""

from sqs_codec._backend.numba.jit import leaf


@leaf
def ahead(key_a, id_a, key_b, id_b):
    return key_a > key_b or (key_a == key_b and id_a < id_b)


@leaf
def heap_replace_root(keys, ids, n, key, id_):
    at = 0
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        if child + 1 < n and ahead(
            keys[child], ids[child], keys[child + 1], ids[child + 1]
        ):
            child += 1
        if ahead(keys[child], ids[child], key, id_):
            break
        keys[at] = keys[child]
        ids[at] = ids[child]
        at = child
    keys[at] = key
    ids[at] = id_


@leaf
def heap_offer(keys, ids, n, capacity, key, id_):
    if n == capacity:
        if ahead(key, id_, keys[0], ids[0]):
            heap_replace_root(keys, ids, n, key, id_)
        return n
    at = n
    while at > 0:
        parent = (at - 1) // 2
        if not ahead(keys[parent], ids[parent], key, id_):
            break
        keys[at] = keys[parent]
        ids[at] = ids[parent]
        at = parent
    keys[at] = key
    ids[at] = id_
    return n + 1
