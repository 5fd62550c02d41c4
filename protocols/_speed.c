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

/* Front ends send the same few names with every request: their str objects,
 * whose hash is known, are kept.  A peer can only replace entries. */
#define SLOTS 512
#define LONGEST_NAME 64

struct known {
    PyObject *name;
    int is_foreign; /* it is in ``foreign`` */
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
    for (slot = 0; slot < SLOTS; slot++)
        Py_CLEAR(names[slot].name);
    Py_XSETREF(foreign, Py_NewRef(asked));
}

/* The name, which the caller owns if ``name`` is set; 0 or -1 as a C API function. */
static int
look_up(const unsigned char *text, Py_ssize_t size, struct known *found)
{
    struct known *kept = NULL;
    uint32_t slot = (uint32_t)size;
    Py_ssize_t at;

    for (at = 0; size <= LONGEST_NAME && at < size && text[at] < 128; at++)
        slot = slot * 31 + text[at];
    if (at == size && size) {
        kept = &names[(slot ^ (slot >> 15)) % SLOTS];
        if (kept->name != NULL && PyUnicode_GET_LENGTH(kept->name) == size &&
            memcmp(PyUnicode_1BYTE_DATA(kept->name), text, (size_t)size) == 0) {
            found->name = Py_NewRef(kept->name);
            found->is_foreign = kept->is_foreign;
            return 0;
        }
    }
    found->name = PyUnicode_DecodeLatin1((const char *)text, size, NULL);
    if (found->name == NULL)
        return -1;
    found->is_foreign = foreign != NULL ? PySet_Contains(foreign, found->name) : 0;
    if (found->is_foreign < 0) {
        Py_CLEAR(found->name);
        return -1;
    }
    if (kept != NULL) {
        kept->is_foreign = found->is_foreign;
        Py_XSETREF(kept->name, Py_NewRef(found->name));
    }
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
    struct known known;
    PyObject *value;
    int outcome = -1;

    if (look_up(name_text, name_size, &known) < 0)
        return -1;
    if (known.is_foreign && to->drops) {
        Py_DECREF(known.name);
        return 1;
    }
    value = PyUnicode_DecodeLatin1((const char *)value_text, value_size, NULL);
    if (value != NULL) {
        if (PyDict_SetItem(to->environ, known.name, value) == 0)
            outcome = PyDict_GET_SIZE(to->environ) > before;
        Py_DECREF(value);
    }
    Py_DECREF(known.name);
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
enum { BEGIN_REQUEST = 1, PARAMS = 4, STDIN = 5, HEAD_SIZE = 8, RESPONDER = 1 };

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

static PyObject *
fastcgi_request(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    const unsigned char *at, *end;
    struct record begin, params, body;
    PyObject *environ;

    if (count != 2 || !PyBytes_CheckExact(args[0]) || !PyFrozenSet_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "bytes and a frozenset are needed");
        return NULL;
    }
    at = (const unsigned char *)PyBytes_AS_STRING(args[0]);
    end = at + PyBytes_GET_SIZE(args[0]);
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

static PyMethodDef functions[] = {
    {"fastcgi_request", (PyCFunction)(void (*)(void))fastcgi_request, METH_FASTCALL,
     "Number, flags, variables and body of a whole request, without the names given; or None."},
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
