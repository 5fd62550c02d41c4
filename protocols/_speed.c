/* The inner loops of the CGI family's codecs: a block of variables to a dictionary.
 *
 * Optional: without this module the codecs do the same in Python, and tests
 * compare the two.  Here is only what goes without saying.  A function returns
 * None for a block that has anything to judge (a name twice, a length that leads
 * out of the block, bytes left over); the codec then looks at it in Python and
 * says what is wrong.
 */

#define PY_SSIZE_T_CLEAN
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
};

static struct known names[SLOTS];

/* The names that are left out where this is asked for; ``names`` says of each of them. */
static PyObject *foreign;

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
}

/* What stands at both ends tells most names apart. */
static struct known *
slot_of(const unsigned char *text, Py_ssize_t size)
{
    uint64_t first = 0, last = 0;
    size_t part = size < 8 ? (size_t)size : 8;

    memcpy(&first, text, part);
    memcpy(&last, text + size - part, part);
    first = (first * 0x9E3779B97F4A7C15u ^ last) * 0xC2B2AE3D27D4EB4Fu + (uint64_t)size;
    return &names[(first >> 32) % SLOTS];
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
    Py_XSETREF(at->name, name);
    return 0;
}

/* Where the pairs go. */
struct target {
    PyObject *environ;
    int drops; /* what is foreign */
};

/* 1: entered; 0: the name is there already; -1: an exception is set. */
static int
enter(const struct target *to, const unsigned char *name_text, Py_ssize_t name_size,
      const unsigned char *value_text, Py_ssize_t value_size)
{
    Py_ssize_t before = PyDict_GET_SIZE(to->environ);
    struct known once = {NULL, NULL, 0}, *known = &once;
    PyObject *value, *any = NULL;
    int outcome = -1;

    if (name_size <= LONGEST)
        known = slot_of(name_text, name_size);
    if (take_slot(known, name_text, name_size) < 0)
        return -1;
    if (known->is_foreign && to->drops) {
        Py_XDECREF(once.name);
        return 1;
    }
    value = text_object(value_size <= LONGEST ? &known->value : &any, value_text, value_size);
    if (value != NULL) {
        if (PyDict_SetItem(to->environ, known->name, value) == 0)
            outcome = PyDict_GET_SIZE(to->environ) > before;
        Py_DECREF(value);
    }
    Py_XDECREF(any);
    Py_XDECREF(once.name);
    Py_XDECREF(once.value);
    return outcome;
}

/* What a reader does with the next pair: 1 goes on, 0 gives up, -1 raises. */
typedef int (*reader)(const struct target *to, const unsigned char **at,
                      const unsigned char *end);

/* A new dictionary; NULL without an exception if the reader gave up. */
static PyObject *
read_pairs(const unsigned char *at, const unsigned char *end, reader next, int drops)
{
    struct target to = {PyDict_New(), drops};

    while (to.environ != NULL && at < end) {
        if (next(&to, &at, end) != 1)
            Py_CLEAR(to.environ);
    }
    return to.environ;
}

static PyObject *
none_unless_failed(void)
{
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
read_block(PyObject *block, reader next)
{
    const unsigned char *at;
    PyObject *environ;

    if (!PyBytes_CheckExact(block)) {
        PyErr_SetString(PyExc_TypeError, "the block must be bytes");
        return NULL;
    }
    at = (const unsigned char *)PyBytes_AS_STRING(block);
    environ = read_pairs(at, at + PyBytes_GET_SIZE(block), next, 0);
    return environ != NULL ? environ : none_unless_failed();
}

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
next_fastcgi(const struct target *to, const unsigned char **at, const unsigned char *end)
{
    Py_ssize_t name_size, value_size;
    const unsigned char *name;

    if (!length_of(at, end, &name_size) || !length_of(at, end, &value_size))
        return 0;
    name = *at;
    if (end - name < name_size || end - name - name_size < value_size)
        return 0;
    *at = name + name_size + value_size;
    return enter(to, name, name_size, name + name_size, value_size);
}

/* The uwsgi protocol: each text after its length, 16 bits, little-endian. */
static int
next_uwsgi(const struct target *to, const unsigned char **at, const unsigned char *end)
{
    const unsigned char *text = *at;
    const unsigned char *start[2];
    Py_ssize_t size[2];
    int part;

    for (part = 0; part < 2; part++) {
        if (end - text < 2)
            return 0;
        size[part] = text[0] | text[1] << 8;
        start[part] = text + 2;
        if (end - start[part] < size[part])
            return 0;
        text = start[part] + size[part];
    }
    *at = text;
    return enter(to, start[0], size[0], start[1], size[1]);
}

/* SCGI: each text ends with a NUL. */
static int
next_scgi(const struct target *to, const unsigned char **at, const unsigned char *end)
{
    const unsigned char *name = *at, *name_end, *value, *value_end;

    name_end = memchr(name, 0, (size_t)(end - name));
    if (name_end == NULL)
        return 0;
    value = name_end + 1;
    value_end = memchr(value, 0, (size_t)(end - value));
    if (value_end == NULL)
        return 0;
    *at = value_end + 1;
    return enter(to, name, name_end - name, value, value_end - value);
}

/* FastCGI 1.0 section 3.3. */
enum { BEGIN_REQUEST = 1, END_REQUEST = 3, PARAMS = 4, STDIN = 5, STDOUT = 6 };
enum { HEAD_SIZE = 8, RESPONDER = 1, LARGEST = 65528 };

struct record {
    int kind, number;
    Py_ssize_t size;
    const unsigned char *content;
};

static int
next_record(const unsigned char **at, const unsigned char *end, struct record *found)
{
    const unsigned char *text = *at;
    Py_ssize_t after;

    if (end - text < HEAD_SIZE || text[0] != 1)
        return 0;
    found->kind = text[1];
    found->number = text[2] << 8 | text[3];
    found->size = text[4] << 8 | text[5];
    found->content = text + HEAD_SIZE;
    after = found->size + text[6];
    if (end - found->content < after)
        return 0;
    *at = found->content + after;
    return 1;
}

/* The one record of a stream of request ``number`` and its end; of a stream of nothing, the end. */
static int
next_stream(const unsigned char **at, const unsigned char *end, int kind, int number,
            struct record *found)
{
    struct record last;

    if (!next_record(at, end, found) || found->kind != kind || found->number != number)
        return 0;
    return !found->size || (next_record(at, end, &last) && last.kind == kind &&
                            last.number == number && !last.size);
}

/* The arguments of a request; 0 with an exception if they are others. */
static int
are_bytes_and_names(PyObject *const *args, Py_ssize_t count, const unsigned char **at,
                    const unsigned char **end)
{
    if (count != 2 || !PyBytes_CheckExact(args[0]) || !PyFrozenSet_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "bytes and a frozenset are needed");
        return 0;
    }
    *at = (const unsigned char *)PyBytes_AS_STRING(args[0]);
    *end = *at + PyBytes_GET_SIZE(args[0]);
    return 1;
}

static PyObject *
fastcgi_request(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    const unsigned char *at, *end;
    struct record begin, params, body;
    PyObject *environ;

    if (!are_bytes_and_names(args, count, &at, &end))
        return NULL;
    if (!next_record(&at, end, &begin) || begin.kind != BEGIN_REQUEST || !begin.number ||
        begin.size != 8 || begin.content[0] || begin.content[1] != RESPONDER ||
        !next_stream(&at, end, PARAMS, begin.number, &params) ||
        !next_stream(&at, end, STDIN, begin.number, &body) || at != end)
        Py_RETURN_NONE;
    leave_out(args[1]);
    environ = read_pairs(params.content, params.content + params.size, next_fastcgi, 1);
    if (environ == NULL)
        return none_unless_failed();
    return Py_BuildValue("iiNy#", begin.number, (int)begin.content[2], environ, body.content,
                         body.size);
}

static PyObject *
fastcgi_pairs(PyObject *Py_UNUSED(module), PyObject *block)
{
    return read_block(block, next_fastcgi);
}

static PyObject *
uwsgi_pairs(PyObject *Py_UNUSED(module), PyObject *block)
{
    return read_block(block, next_uwsgi);
}

static PyObject *
scgi_pairs(PyObject *Py_UNUSED(module), PyObject *block)
{
    return read_block(block, next_scgi);
}

/* All of an SCGI request without a body: a netstring that says so first, and nothing else. */
static PyObject *
scgi_request(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    static const char first[] = "CONTENT_LENGTH\0000"; /* and its NUL */
    const unsigned char *at, *end;
    Py_ssize_t size = 0;
    PyObject *environ;

    if (!are_bytes_and_names(args, count, &at, &end))
        return NULL;
    if (at < end && *at == '0')
        Py_RETURN_NONE;
    for (; at < end && *at >= '0' && *at <= '9' && size < LARGEST; at++)
        size = size * 10 + (*at - '0');
    if (end - at != size + 2 || *at != ':' || end[-1] != ',' || size < (Py_ssize_t)sizeof first ||
        memcmp(at + 1, first, sizeof first) != 0)
        Py_RETURN_NONE;
    leave_out(args[1]);
    environ = read_pairs(at + 1, end - 1, next_scgi, 1);
    return environ != NULL ? environ : none_unless_failed();
}

/* The variables of a uwsgi request of which nothing else came. */
static PyObject *
uwsgi_request(PyObject *Py_UNUSED(module), PyObject *data)
{
    const unsigned char *at;
    Py_ssize_t size;
    PyObject *environ;

    if (!PyBytes_CheckExact(data)) {
        PyErr_SetString(PyExc_TypeError, "bytes are needed");
        return NULL;
    }
    at = (const unsigned char *)PyBytes_AS_STRING(data);
    size = PyBytes_GET_SIZE(data) - 4;
    if (size < 0 || at[0] || at[3] || (at[1] | at[2] << 8) != size)
        Py_RETURN_NONE;
    environ = read_pairs(at + 4, at + 4 + size, next_uwsgi, 0);
    return environ != NULL ? environ : none_unless_failed();
}

static unsigned char *
put_head(unsigned char *at, int kind, long number, size_t size)
{
    *at++ = 1;
    *at++ = (unsigned char)kind;
    *at++ = (unsigned char)(number >> 8);
    *at++ = (unsigned char)number;
    *at++ = (unsigned char)(size >> 8);
    *at++ = (unsigned char)size;
    *at++ = (unsigned char)(-size & 7);
    *at++ = 0;
    return at;
}

static PyObject *
fastcgi_answer(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    size_t head, data, size, padding;
    unsigned char *at;
    PyObject *answer;
    long number;

    if (count != 3 || !PyLong_Check(args[0]) || !PyBytes_Check(args[1]) ||
        !PyBytes_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "a number and bytes twice are needed");
        return NULL;
    }
    number = PyLong_AsLong(args[0]);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    head = (size_t)PyBytes_GET_SIZE(args[1]);
    data = (size_t)PyBytes_GET_SIZE(args[2]);
    if (number < 0 || number > 65535 || head > LARGEST || data > LARGEST - head || !(head + data))
        Py_RETURN_NONE;
    size = head + data;
    padding = -size & 7;
    answer = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(HEAD_SIZE * 4 + size + padding));
    if (answer == NULL)
        return NULL;
    at = put_head((unsigned char *)PyBytes_AS_STRING(answer), STDOUT, number, size);
    memcpy(at, PyBytes_AS_STRING(args[1]), head);
    memcpy(at + head, PyBytes_AS_STRING(args[2]), data);
    memset(at + size, 0, padding);
    at = put_head(at + size + padding, STDOUT, number, 0);
    at = put_head(at, END_REQUEST, number, 8);
    memset(at, 0, 8);
    return answer;
}

static PyMethodDef functions[] = {
    {"fastcgi_answer", (PyCFunction)(void (*)(void))fastcgi_answer, METH_FASTCALL,
     "All of an answer to a number, of a head and data that fit in one record; or None."},
    {"fastcgi_request", (PyCFunction)(void (*)(void))fastcgi_request, METH_FASTCALL,
     "Number, flags, variables and body of a whole request, without the names given; or None."},
    {"scgi_request", (PyCFunction)(void (*)(void))scgi_request, METH_FASTCALL,
     "Variables of a whole request without a body, without the names given; or None."},
    {"uwsgi_request", uwsgi_request, METH_O, "Variables that are all that came, or None."},
    {"fastcgi_pairs", fastcgi_pairs, METH_O, "The variables of a FCGI_PARAMS stream, or None."},
    {"uwsgi_pairs", uwsgi_pairs, METH_O, "The variables of a uwsgi block, or None."},
    {"scgi_pairs", scgi_pairs, METH_O, "The variables of an SCGI netstring, or None."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "protocols._speed",
    .m_doc = "Blocks of variables to dictionaries, compiled; see protocols.pairs.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__speed(void)
{
    return PyModule_Create(&definition);
}
