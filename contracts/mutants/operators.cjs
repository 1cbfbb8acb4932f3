// The mutation operators: small wrong edits of one file, found in its syntax tree, so that no edit hits
// a comment and every edit knows its types. Solidity first, then Yul.
'use strict';

const RELATIONAL = { '<': '<=', '<=': '<', '>': '>=', '>=': '>' };
const EQUALITY = { '==': ['<=', '>='], '!=': ['<', '>'] };
const ARITHMETIC = { '+': '-', '-': '+', '*': '/', '/': '*', '%': '*', '**': '*' };
const BITWISE = { '<<': '>>', '>>': '<<', '&': '|', '|': '&', '^': '&' };
const ASSIGNING = {
  '+=': ['-=', '='],
  '-=': ['+=', '='],
  '*=': ['='],
  '/=': ['='],
  '|=': ['&=', '='],
  '&=': ['|=', '='],
  '^=': ['='],
  '<<=': ['>>='],
  '>>=': ['<<='],
};
const YUL_ARITHMETIC = { add: 'sub', sub: 'add', mul: 'div', div: 'mul', mod: 'div' };
const YUL_BITWISE = { and: 'or', or: 'and', xor: 'or', shl: 'shr', shr: 'shl' };
const YUL_ORDERED = ['sub', 'div', 'mod', 'shl', 'shr', 'lt', 'gt', 'mstore', 'sstore', 'keccak256'];

/// Every mutant of a file: operator, the function it stands in, the text before and after, and the
/// edit itself in bytes. Mutants alike in all of these are told apart by an ordinal.
function mutantsOf(file, sources, asts) {
  const source = sources[file];
  const ast = asts[file];
  const text = Buffer.from(source);
  const found = [];
  const enums = collectEnums(asts);

  const span = (node) => {
    const [start, length] = node.src.split(':').map(Number);
    return { start, end: start + length };
  };
  const read = (node) => text.subarray(span(node).start, span(node).end).toString();
  const add = (scope, operator, whole, start, end, replacement) => {
    const place = span(whole);
    const before = text.subarray(place.start, place.end).toString();
    const after =
      text.subarray(place.start, start).toString() +
      replacement +
      text.subarray(end, Math.max(end, place.end)).toString();
    found.push({ file, operator, scope, from: flat(before), to: flat(after), start, end, replacement });
  };
  const replace = (scope, operator, node, replacement) =>
    add(scope, operator, node, span(node).start, span(node).end, replacement);
  /// Replaces a statement with its semicolon, which the tree leaves out.
  const drop = (scope, operator, node, replacement) => {
    const { start, end } = span(node);
    const rest = text.subarray(end).toString().match(/^\s*;/);
    add(scope, operator, node, start, end + (rest ? rest[0].length : 0), replacement);
  };
  /// Replaces a node, and names the mutant after what the node stands in.
  const within = (scope, operator, parent, node, replacement) =>
    add(scope, operator, parent, span(node).start, span(node).end, replacement);
  /// Replaces what stands between two nodes, an operator or a comma, without comments.
  const between = (scope, operator, whole, left, right, from, to) => {
    const start = span(left).end;
    const gap = text.subarray(start, span(right).start).toString();
    const at = start + Buffer.byteLength(gap.slice(0, gap.indexOf(from)));
    add(scope, operator, whole, at, at + from.length, to);
  };
  const swap = (scope, whole, left, right) => {
    const middle = text.subarray(span(left).end, span(right).start).toString();
    if (read(left) === read(right)) return;
    const swapped = read(right) + middle + read(left);
    add(scope, 'arguments swapped', whole, span(left).start, span(right).end, swapped);
  };

  /// Each boolean that && and || do not take apart further.
  const negate = (scope, node) => {
    if (node.nodeType === 'BinaryOperation' && ['&&', '||'].includes(node.operator)) {
      negate(scope, node.leftExpression);
      negate(scope, node.rightExpression);
    } else if (node.nodeType === 'UnaryOperation' && node.operator === '!') {
      replace(scope, 'condition negated', node, read(node.subExpression));
    } else {
      replace(scope, 'condition negated', node, `!(${read(node)})`);
    }
  };

  const solidity = {
    IfStatement(node, scope) {
      negate(scope, node.condition);
      replace(scope, 'condition fixed', node.condition, 'true');
      replace(scope, 'condition fixed', node.condition, 'false');
    },
    Conditional(node, scope) {
      negate(scope, node.condition);
    },
    ForStatement(node, scope) {
      if (node.condition) replace(scope, 'condition fixed', node.condition, 'false');
    },
    WhileStatement(node, scope) {
      negate(scope, node.condition);
    },
    BinaryOperation(node, scope) {
      const { leftExpression: left, rightExpression: right, operator } = node;
      const put = (kind, to) => between(scope, kind, node, left, right, operator, to);
      if (RELATIONAL[operator]) put('relational', RELATIONAL[operator]);
      if (EQUALITY[operator] && isNumber(left) && isNumber(right) && !isZero(left) && !isZero(right)) {
        for (const to of EQUALITY[operator]) put('relational', to);
      }
      if (ARITHMETIC[operator]) put('arithmetic', ARITHMETIC[operator]);
      if (BITWISE[operator]) put('bitwise', BITWISE[operator]);
      if (operator === '&&' || operator === '||') {
        put('logical', operator === '&&' ? '||' : '&&');
        replace(scope, 'logical', node, read(left));
        replace(scope, 'logical', node, read(right));
      }
    },
    UnaryOperation(node, scope) {
      const inner = read(node.subExpression);
      if (node.operator === '++' || node.operator === '--') {
        const other = node.operator === '++' ? '--' : '++';
        replace(scope, 'arithmetic', node, node.prefix ? other + inner : inner + other);
        if (!node.isStatement) {
          replace(scope, 'arithmetic', node, inner);
          replace(scope, 'arithmetic', node, node.prefix ? inner + node.operator : node.operator + inner);
        }
      }
      if (node.operator === '~' || node.operator === '-') replace(scope, 'bitwise', node, inner);
    },
    Assignment(node, scope) {
      for (const to of ASSIGNING[node.operator] ?? []) {
        between(scope, 'arithmetic', node, node.leftHandSide, node.rightHandSide, node.operator, to);
      }
    },
    ExpressionStatement(node, scope) {
      node.expression.isStatement = true;
      const name = node.expression.expression?.name;
      if (name === 'require' || name === 'assert') {
        negate(scope, node.expression.arguments[0]);
        drop(scope, 'require removed', node, '{}');
      } else {
        drop(scope, 'statement deleted', node, '{}');
      }
    },
    EmitStatement: (node, scope) => drop(scope, 'statement deleted', node, '{}'),
    RevertStatement: (node, scope) => drop(scope, 'statement deleted', node, '{}'),
    Break: (node, scope) => drop(scope, 'statement deleted', node, 'continue;'),
    Continue: (node, scope) => drop(scope, 'statement deleted', node, 'break;'),
    VariableDeclarationStatement(node, scope) {
      const [declaration] = node.declarations;
      if (node.declarations.length !== 1 || !node.initialValue) return;
      add(scope, 'statement deleted', node, span(declaration).end, span(node.initialValue).end, '');
    },
    Return(node, scope) {
      if (!node.expression) return;
      drop(scope, 'statement deleted', node, '{}');
      const parts =
        node.expression.nodeType === 'TupleExpression' ? node.expression.components : [node.expression];
      for (const part of parts) {
        const other = otherValue(part, read);
        if (other) replace(scope, 'return value', part, other);
      }
    },
    Literal(node, scope, parent) {
      const put = (to) => within(scope, 'constant', parent, node, to);
      if (node.kind === 'number') otherNumbers(read(node)).forEach(put);
      else if (node.kind === 'string') put(read(node).replace(/"$/, 'x"'));
      else if (node.kind === 'bool') put(node.value === 'true' ? 'false' : 'true');
    },
    MemberAccess(node, scope, parent) {
      const type = node.expression.typeDescriptions?.typeString ?? '';
      const put = (to) => within(scope, 'constant', parent, node, to);
      if (node.memberName === 'max' && type.startsWith('type(')) put(`(${read(node)} - 1)`);
      const members = enums.get(node.referencedDeclaration);
      if (members) {
        const next = members[(members.indexOf(node.memberName) + 1) % members.length];
        put(`${read(node.expression)}.${next}`);
      }
    },
    FunctionCall(node, scope) {
      const { arguments: given } = node;
      if (node.kind === 'typeConversion') {
        if (given[0].nodeType !== 'Literal') replace(scope, 'conversion removed', node, read(given[0]));
        return;
      }
      const anyType = /^(abi\.encode|abi\.encodePacked|bytes\.concat)$/.test(read(node.expression));
      for (let i = 0; i + 1 < given.length; ++i) {
        const same = typeOf(given[i]) === typeOf(given[i + 1]);
        if (same || anyType) swap(scope, node, given[i], given[i + 1]);
      }
    },
    ModifierInvocation(node, scope) {
      if (node.kind === 'modifierInvocation') replace(scope, 'modifier removed', node, '');
    },
    UncheckedBlock(node, scope) {
      const { start } = span(node);
      add(scope, 'unchecked removed', node, start, start + 'unchecked'.length, '');
    },
  };

  const yul = {
    YulFunctionCall(node, scope) {
      const name = node.functionName.name;
      const given = node.arguments;
      const put = (kind, to) => within(scope, kind, node, node.functionName, to);
      const whole = (kind, to) => replace(scope, kind, node, to);
      if (YUL_ARITHMETIC[name]) put('arithmetic', YUL_ARITHMETIC[name]);
      if (YUL_BITWISE[name]) put('bitwise', YUL_BITWISE[name]);
      if (name === 'lt' || name === 'gt') {
        const other = name === 'lt' ? 'gt' : 'lt';
        put('relational', other);
        whole('relational', `iszero(${other}(${given.map(read).join(', ')}))`);
      }
      if (name === 'eq') {
        whole('condition negated', `iszero(${read(node)})`);
        put('relational', 'lt');
        put('relational', 'gt');
      }
      if (name === 'iszero') whole('condition negated', read(given[0]));
      if (name === 'not') whole('bitwise', read(given[0]));
      if (YUL_ORDERED.includes(name)) swap(scope, node, given[0], given[1]);
    },
    YulLiteral(node, scope, parent) {
      if (node.kind !== 'number') return;
      for (const other of otherNumbers(read(node))) within(scope, 'constant', parent, node, other);
    },
    YulExpressionStatement: (node, scope) => replace(scope, 'statement deleted', node, '{}'),
    YulAssignment: (node, scope) => replace(scope, 'statement deleted', node, '{}'),
    YulVariableDeclaration(node, scope) {
      if (node.value && read(node.value) !== '0') replace(scope, 'statement deleted', node.value, '0');
    },
    YulIf(node, scope) {
      replace(scope, 'condition fixed', node.condition, '0');
      replace(scope, 'condition fixed', node.condition, '1');
    },
    YulForLoop(node, scope) {
      replace(scope, 'condition fixed', node.condition, '0');
    },
  };

  const visit = (node, scope, parent) => {
    if (Array.isArray(node)) return node.forEach((each) => visit(each, scope, parent));
    if (!node || typeof node !== 'object') return;
    let inside = scope;
    if (node.nodeType === 'FunctionDefinition') inside = node.name || node.kind;
    if (node.nodeType === 'VariableDeclaration' && node.stateVariable) inside = node.name;
    // Names of types, file names and documentation are no code.
    if (/TypeName$|^ImportDirective$|^StructuredDocumentation$/.test(node.nodeType ?? '')) return;
    if (inside) (solidity[node.nodeType] ?? yul[node.nodeType])?.(node, inside, parent);
    for (const [key, child] of Object.entries(node)) {
      if (key !== 'typeDescriptions' && key !== 'overrides') visit(child, inside, node.src ? node : parent);
    }
  };
  visit(ast.nodes, undefined, ast);
  return numbered(found, text);
}

function collectEnums(ast) {
  const enums = new Map();
  const visit = (node) => {
    if (!node || typeof node !== 'object') return;
    if (node.nodeType === 'EnumDefinition') {
      const names = node.members.map((member) => member.name);
      for (const member of node.members) enums.set(member.id, names);
    }
    Object.values(node).forEach(visit);
  };
  visit(ast);
  return enums;
}

function numbered(found, text) {
  const seen = new Map();
  return found
    .sort((a, b) => a.start - b.start || a.end - b.end)
    .map((mutant) => {
      const name = `${mutant.file} ${mutant.scope}: ${mutant.operator}: ${mutant.from} => ${mutant.to}`;
      const ordinal = (seen.get(name) ?? 0) + 1;
      seen.set(name, ordinal);
      const line = text.subarray(0, mutant.start).toString().split('\n').length;
      return { ...mutant, line, id: ordinal === 1 ? name : `${name} (${ordinal})` };
    });
}

/// The file's source with one mutant put in.
function applied(source, { start, end, replacement }) {
  const text = Buffer.from(source);
  return Buffer.concat([text.subarray(0, start), Buffer.from(replacement), text.subarray(end)]).toString();
}

function typeOf(node) {
  return node.typeDescriptions?.typeString;
}

function isNumber(node) {
  return /^(u?int|int_const)/.test(typeOf(node) ?? '');
}

function isZero(node) {
  return node.nodeType === 'Literal' && Number(node.value) === 0;
}

/// A wrong value of the same type, if one is easy to name.
function otherValue(node, read) {
  const type = typeOf(node) ?? '';
  if (node.nodeType === 'Literal') return undefined;
  if (type === 'bool') return `!(${read(node)})`;
  if (/^u?int\d*$/.test(type)) return '0';
  if (/^bytes\d+$/.test(type)) return `${type}(0)`;
  if (type === 'address') return 'address(0)';
  return undefined;
}

function otherNumbers(literal) {
  const digits = literal.replace(/_/g, '');
  if (!/^(0x[0-9a-fA-F]+|\d+)$/.test(digits)) return [];
  const value = BigInt(digits);
  const write = (n) => (digits.startsWith('0x') ? `0x${n.toString(16)}` : n.toString());
  // A long hexadecimal number is a mask: one bit shorter as well.
  const masks = digits.startsWith('0x') && digits.length > 6 ? [value >> 1n] : [];
  const near = value === 0n ? [1n] : [value + 1n, value - 1n];
  return [...new Set([...near, ...masks])].map(write);
}

function flat(code) {
  return code.replace(/\/\/[^\n]*\n/g, ' ').replace(/\s+/g, ' ').trim();
}

module.exports = { applied, mutantsOf };
