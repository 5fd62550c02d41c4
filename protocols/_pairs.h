/* Blocks of names and values to dictionaries, for every protocol of the CGI family.
 *
 * What the codecs judge is left to them: a function that has anything to judge
 * gives up, which is no exception.
 */

#ifndef GATEWAY_PAIRS_H
#define GATEWAY_PAIRS_H

#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE /* memmem */
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* Front ends send the same few names with every request, and mostly the same
 * values: their str objects are kept.  A peer can only replace entries. */
#define SLOTS 512
#define LONGEST 64

struct known {
    PyObject *name, *value; /* the last value that was short enough */
    int is_foreign;         /* it is in ``foreign`` */
    int is_claim;           /* it speaks for somebody behind the peer */
};

static struct known names[SLOTS];

/* The names that are left out where this is asked for; ``names`` says of each of them. */
static PyObject *foreign;

/* Whether a name with this in it was entered, and the key that says so (protocols.model). */
static const char claim_mark[] = "_FORWARDED", claims_key[] = "gateway.claims";

static void forget_shapes(void);

static void
leave_out(PyObject *asked)
{
    size_t slot;

    if (asked == foreign)
        return;
    for (slot = 0; slot < SLOTS; slot++) {
        Py_CLEAR(names[slot].name);
        Py_CLEAR(names[slot].value);
    }
    Py_XSETREF(foreign, Py_NewRef(asked));
    forget_shapes();
}

/* What stands at both ends tells most names apart. */
static uint64_t
hash_of(const unsigned char *text, Py_ssize_t size)
{
    uint64_t first = 0, last = 0;
    size_t part = size < 8 ? (size_t)size : 8;

    memcpy(&first, text, part);
    memcpy(&last, text + size - part, part);
    return (first * 0x9E3779B97F4A7C15u ^ last) * 0xC2B2AE3D27D4EB4Fu + (uint64_t)size;
}

static struct known *
slot_of(const unsigned char *text, Py_ssize_t size)
{
    return &names[(hash_of(text, size) >> 32) % SLOTS];
}

static int
is_text(PyObject *object, const unsigned char *text, Py_ssize_t size)
{
    return object != NULL && PyUnicode_GET_LENGTH(object) == size &&
           memcmp(PyUnicode_1BYTE_DATA(object), text, (size_t)size) == 0;
}

/* A new reference to the text, which replaces what is kept unless it is the same. */
static PyObject *
text_object(PyObject **kept, const unsigned char *text, Py_ssize_t size)
{
    PyObject *made;

    if (is_text(*kept, text, size))
        return Py_NewRef(*kept);
    made = PyUnicode_DecodeLatin1((const char *)text, size, NULL);
    if (made != NULL)
        Py_XSETREF(*kept, Py_NewRef(made));
    return made;
}

/* Make ``at`` the slot of a name; 0 or -1 as a C API function. */
static int
take_slot(struct known *at, const unsigned char *text, Py_ssize_t size)
{
    PyObject *name;
    int is_foreign = 0;

    if (is_text(at->name, text, size))
        return 0;
    name = PyUnicode_DecodeLatin1((const char *)text, size, NULL);
    if (name != NULL && foreign != NULL)
        is_foreign = PySet_Contains(foreign, name);
    if (name == NULL || is_foreign < 0) {
        Py_XDECREF(name);
        return -1;
    }
    at->is_foreign = is_foreign;
    at->is_claim = memmem(text, (size_t)size, claim_mark, sizeof claim_mark - 1) != NULL;
    Py_XSETREF(at->name, name);
    return 0;
}

/* One name and its value in a block. */
struct pair {
    const unsigned char *name, *value;
    Py_ssize_t name_size, value_size;
};

/* Where the next pair is; 0 if there is no whole one. */
typedef int (*reader)(const unsigned char **at, const unsigned char *end, struct pair *found);

/* FastCGI 1.0 section 3.4: a length takes one byte, or four of which the first has bit 7. */
static int
length_of(const unsigned char **at, const unsigned char *end, Py_ssize_t *length)
{
    const unsigned char *text = *at;

    if (text == end)
        return 0;
    if (text[0] < 128) {
        *length = text[0];
        *at = text + 1;
        return 1;
    }
    if (end - text < 4)
        return 0;
    *length = (Py_ssize_t)(text[0] & 127) << 24 | (Py_ssize_t)text[1] << 16 |
              (Py_ssize_t)text[2] << 8 | (Py_ssize_t)text[3];
    *at = text + 4;
    return 1;
}

static int
next_fastcgi(const unsigned char **at, const unsigned char *end, struct pair *found)
{

    if (!length_of(at, end, &found->name_size) || !length_of(at, end, &found->value_size))
        return 0;
    if (end - *at < found->name_size || end - *at - found->name_size < found->value_size)
        return 0;
    found->name = *at;
    found->value = *at + found->name_size;
    *at = found->value + found->value_size;
    return 1;
}

/* The uwsgi protocol: a text after its length, 16 bits, little-endian. */
static int
next_text(const unsigned char **at, const unsigned char *end, const unsigned char **text,
          Py_ssize_t *size)
{
    if (end - *at < 2)
        return 0;
    *size = (*at)[0] | (*at)[1] << 8;
    *text = *at + 2;
    if (end - *text < *size)
        return 0;
    *at = *text + *size;
    return 1;
}

static int
next_uwsgi(const unsigned char **at, const unsigned char *end, struct pair *found)
{
    return next_text(at, end, &found->name, &found->name_size) &&
           next_text(at, end, &found->value, &found->value_size);
}

/* SCGI: each text ends with a NUL. */
static int
next_scgi(const unsigned char **at, const unsigned char *end, struct pair *found)
{
    const unsigned char *name_end, *value_end;

    name_end = memchr(*at, 0, (size_t)(end - *at));
    if (name_end == NULL)
        return 0;
    value_end = memchr(name_end + 1, 0, (size_t)(end - name_end - 1));
    if (value_end == NULL)
        return 0;
    found->name = *at;
    found->name_size = name_end - *at;
    found->value = name_end + 1;
    found->value_size = value_end - found->value;
    *at = value_end + 1;
    return 1;
}

static PyObject *
value_object(struct known *known, const struct pair *pair)
{
    if (pair->value_size <= LONGEST)
        return text_object(&known->value, pair->value, pair->value_size);
    return PyUnicode_DecodeLatin1((const char *)pair->value, pair->value_size, NULL);
}

/* 1: entered, or left out; 0: the name is there already; -1: an exception is set. */
static int
enter(PyObject *environ, const struct pair *pair, int drops, int *claims)
{
    Py_ssize_t before = PyDict_GET_SIZE(environ);
    struct known once = {NULL, NULL, 0, 0}, *known = &once;
    PyObject *value;
    int outcome = -1;

    if (pair->name_size <= LONGEST)
        known = slot_of(pair->name, pair->name_size);
    if (take_slot(known, pair->name, pair->name_size) < 0)
        return -1;
    if (known->is_foreign && drops) {
        outcome = 1;
    } else if ((value = value_object(known, pair)) != NULL) {
        if (PyDict_SetItem(environ, known->name, value) == 0)
            outcome = PyDict_GET_SIZE(environ) > before;
        *claims |= known->is_claim;
        Py_DECREF(value);
    }
    Py_XDECREF(once.name);
    Py_XDECREF(once.value);
    return outcome;
}

/* A new dictionary; NULL without an exception if there is something to judge. */
static PyObject *
read_pairs(const unsigned char *at, const unsigned char *end, reader next, int drops, int *claims)
{
    PyObject *environ = PyDict_New();
    struct pair pair;

    while (environ != NULL && at < end) {
        if (!next(&at, end, &pair) || enter(environ, &pair, drops, claims) != 1)
            Py_CLEAR(environ);
    }
    return environ;
}

/* A front end sends the same names in the same order again and again.  What came
 * of them is kept, once they came twice in a row; a copy of it is cheaper than a
 * dictionary that grows, and only values that differ are entered. */
#define SHAPES 32
#define MOST_PAIRS 48
#define LARGEST_BLOCK 4096

struct shape {
    PyObject *environ; /* handed out as copies only; NULL: none is kept */
    PyObject *base;    /* what is in it beside */
    uint64_t sum;      /* of the names that came last */
    int drops;
    Py_ssize_t count;
    struct {
        PyObject *name, *value; /* the value is NULL if it was left out, or is that of the base */
    } pairs[MOST_PAIRS];
};

static struct shape shapes[SHAPES];

static void
forget_shape(struct shape *shape)
{
    Py_ssize_t at;

    for (at = 0; at < shape->count; at++) {
        Py_CLEAR(shape->pairs[at].name);
        Py_CLEAR(shape->pairs[at].value);
    }
    shape->count = 0;
    Py_CLEAR(shape->environ);
    Py_CLEAR(shape->base);
}

static void
forget_shapes(void)
{
    size_t at;

    for (at = 0; at < SHAPES; at++)
        forget_shape(&shapes[at]);
}

static int
has_names(const struct shape *shape, const struct pair *pairs, Py_ssize_t count, int drops,
          PyObject *base)
{
    Py_ssize_t at;

    if (shape->environ == NULL || shape->count != count || shape->drops != drops ||
        shape->base != base)
        return 0;
    for (at = 0; at < count; at++) {
        if (!is_text(shape->pairs[at].name, pairs[at].name, pairs[at].name_size))
            return 0;
    }
    return 1;
}

/* A copy of what is kept, with other values; NULL without an exception if it is gone. */
static PyObject *
filled(struct shape *shape, const struct pair *pairs)
{
    PyObject *kept = Py_NewRef(shape->environ), *environ = PyDict_Copy(kept), *value;
    Py_ssize_t at;
    int failed;

    if (environ != NULL && shape->environ != kept)
        Py_CLEAR(environ); /* a collection of garbage ran other code */
    Py_DECREF(kept);
    for (at = 0; environ != NULL && at < shape->count; at++) {
        if (shape->pairs[at].value == NULL ||
            is_text(shape->pairs[at].value, pairs[at].value, pairs[at].value_size))
            continue;
        value = value_object(slot_of(pairs[at].name, pairs[at].name_size), &pairs[at]);
        failed = value == NULL || PyDict_SetItem(environ, shape->pairs[at].name, value) < 0;
        Py_XDECREF(value);
        if (failed)
            Py_CLEAR(environ);
    }
    return environ;
}

/* What is in every environ, whatever the front end says; 0 or -1 as a C API function. */
static int
complete(PyObject *environ, PyObject *base, int claims)
{
    PyObject *empty;
    int failed = base != NULL && PyDict_Update(environ, base) < 0;

    if (failed || !claims)
        return -failed;
    empty = PyUnicode_New(0, 0);
    failed = empty == NULL || PyDict_SetItemString(environ, claims_key, empty) < 0;
    Py_XDECREF(empty);
    return -failed;
}

/* Take name and value of a pair from what came of it; 0 with an exception. */
static int
keep_pair(struct shape *shape, const struct pair *pair, PyObject *name, PyObject *value)
{
    Py_ssize_t at = shape->count++;
    int is_ours = 0;

    if (name == NULL) {
        shape->pairs[at].name =
            PyUnicode_DecodeLatin1((const char *)pair->name, pair->name_size, NULL);
        return shape->pairs[at].name != NULL;
    }
    shape->pairs[at].name = Py_NewRef(name);
    if (shape->base != NULL)
        is_ours = PyDict_Contains(shape->base, name);
    if (!is_ours)
        shape->pairs[at].value = Py_NewRef(value);
    return is_ours >= 0;
}

/* Keep what came of the pairs.  Does nothing where memory is short. */
static void
keep_shape(struct shape *shape, PyObject *environ, const struct pair *pairs, Py_ssize_t count,
           int drops, PyObject *base, int claims)
{
    PyObject *copy = PyDict_Copy(environ), *name = NULL, *value = NULL;
    Py_ssize_t at, next = 0;
    /* First, for it may collect garbage, which may run other code. */
    int succeeds = copy != NULL && complete(copy, base, claims) == 0;
    int is_left, is_entered;

    forget_shape(shape);
    shape->base = Py_XNewRef(base);
    is_left = succeeds && PyDict_Next(environ, &next, &name, &value);
    for (at = 0; succeeds && at < count; at++) {
        is_entered = is_left && is_text(name, pairs[at].name, pairs[at].name_size);
        succeeds = keep_pair(shape, &pairs[at], is_entered ? name : NULL, value);
        if (is_entered)
            is_left = PyDict_Next(environ, &next, &name, &value);
    }
    if (succeeds) {
        shape->drops = drops;
        shape->environ = copy;
        return;
    }
    PyErr_Clear();
    Py_XDECREF(copy);
    forget_shape(shape);
}

/* What a block has to have once, and is not of the environ. */
struct mark {
    const char *name, *value;
};

/* 1: this is the mark; 0: this is something else; -1: it has another value. */
static int
judge_mark(const struct pair *pair, const struct mark *mark)
{
    size_t name = strlen(mark->name), value = strlen(mark->value);

    if (pair->name_size != (Py_ssize_t)name || memcmp(pair->name, mark->name, name) != 0)
        return 0;
    return pair->value_size == (Py_ssize_t)value && memcmp(pair->value, mark->value, value) == 0
               ? 1
               : -1;
}

/* Take the mark out; 0 if it is not there, or with an exception. */
static int
unmark(PyObject *environ, const struct mark *mark)
{
    PyObject *value = PyDict_GetItemString(environ, mark->name);

    return value != NULL && PyUnicode_CompareWithASCIIString(value, mark->value) == 0 &&
           PyDict_DelItemString(environ, mark->name) == 0;
}

/* A block with more pairs than are looked at together, or longer names. */
static PyObject *
read_unkept(const unsigned char *at, const unsigned char *end, reader next, int drops,
            PyObject *base, const struct mark *mark)
{
    int claims = 0;
    PyObject *environ = read_pairs(at, end, next, drops, &claims);

    if (environ != NULL &&
        ((mark != NULL && !unmark(environ, mark)) || complete(environ, base, claims) < 0))
        Py_CLEAR(environ);
    return environ;
}

/* As read_pairs of an array of them. */
static PyObject *
entered(const struct pair *pairs, Py_ssize_t count, int drops, int *claims)
{
    PyObject *environ = PyDict_New();
    Py_ssize_t at;

    for (at = 0; environ != NULL && at < count; at++) {
        if (enter(environ, &pairs[at], drops, claims) != 1)
            Py_CLEAR(environ);
    }
    return environ;
}

/* The environ of a request: its variables, and ``base`` (or NULL), whose values win. */
static PyObject *
read_variables(const unsigned char *at, const unsigned char *end, reader next, int drops,
               PyObject *base, const struct mark *mark)
{
    const unsigned char *start = at;
    struct pair pairs[MOST_PAIRS];
    struct shape *shape;
    PyObject *environ = NULL;
    Py_ssize_t count = 0;
    int marks = mark == NULL, claims = 0, judged;
    uint64_t sum = (uint64_t)drops ^ (uint64_t)(uintptr_t)base;

    while (at < end) {
        if (count == MOST_PAIRS || !next(&at, end, &pairs[count]) ||
            pairs[count].name_size > LONGEST)
            return read_unkept(start, end, next, drops, base, mark);
        judged = mark == NULL ? 0 : judge_mark(&pairs[count], mark);
        if (judged) {
            marks += judged > 0 ? 1 : 2;
            continue;
        }
        sum = sum * 0x9E3779B97F4A7C15u + hash_of(pairs[count].name, pairs[count].name_size);
        count++;
    }
    if (marks != 1)
        return NULL;
    shape = &shapes[(sum >> 32) % SHAPES];
    if (has_names(shape, pairs, count, drops, base))
        environ = filled(shape, pairs);
    if (environ != NULL || PyErr_Occurred())
        return environ;
    environ = entered(pairs, count, drops, &claims);
    if (environ != NULL && end - start <= LARGEST_BLOCK) {
        if (shape->sum == sum)
            keep_shape(shape, environ, pairs, count, drops, base, claims);
        shape->sum = sum;
    }
    if (environ != NULL && complete(environ, base, claims) < 0)
        Py_CLEAR(environ);
    return environ;
}

#endif
