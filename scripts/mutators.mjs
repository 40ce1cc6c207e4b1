/**
 * Compiles every mutant of a TypeScript file into it, each behind a switch: `__mutant(17)` is true in a process whose
 * environment has `NVENT_MUTANT=17`. One build then serves all of them.
 */
import ts from 'typescript'

const { factory: f, SyntaxKind: K } = ts

/** Functions whose text is for messages only. */
const MESSAGES = /^(invalid|debug|warn\w*|text|object|options|finite|callback|json\w*|whole|globs|named|\w*Error|emitWarning|appendFileSync)$/

const BOUNDARY = new Map([
  [K.LessThanToken, K.LessThanEqualsToken], [K.LessThanEqualsToken, K.LessThanToken],
  [K.GreaterThanToken, K.GreaterThanEqualsToken], [K.GreaterThanEqualsToken, K.GreaterThanToken],
])
const EQUALITY = new Map([
  [K.EqualsEqualsEqualsToken, K.ExclamationEqualsEqualsToken], [K.ExclamationEqualsEqualsToken, K.EqualsEqualsEqualsToken],
])
const ARITHMETIC = new Map([
  [K.PlusToken, K.MinusToken], [K.MinusToken, K.PlusToken], [K.AsteriskToken, K.SlashToken], [K.SlashToken, K.AsteriskToken],
])
const LOGICAL = new Set([K.AmpersandAmpersandToken, K.BarBarToken, K.QuestionQuestionToken])

/** Answers whether a mutant is active; with `NVENT_MUTANT_COVERAGE`, records in that file which tests reach which. */
export const runtime = `const __mutant = globalThis.__nventMutant ??= (() => {
  const env = globalThis.process?.env ?? {}
  const active = Number(env.NVENT_MUTANT ?? -1)
  const file = env.NVENT_MUTANT_COVERAGE
  if (!file) return id => id === active
  const { appendFileSync } = process.getBuiltinModule('node:fs')
  const seen = new Set()
  return (id) => {
    const collect = globalThis.__nventMutantReached
    if (collect) collect.add(id)
    else if (!seen.has(id)) {
      seen.add(id)
      appendFileSync(file, JSON.stringify([env.NVENT_MUTANT_FILE ?? '', env.NVENT_MUTANT_TEST ?? '', [id]]) + '\\n')
    }
    return false
  }
})();
`

/** Returns the text of a file with its mutants. `register(mutant)` returns the number of one. */
export function instrument(text, file, register) {
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const { transformed: [result] } = ts.transform(source, [context => (root) => {
    const visit = (node) => {
      if (ts.isTypeNode(node) || ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node) || ts.isImportDeclaration(node) || ts.isModuleDeclaration(node)) return node
      return mutate(node, ts.visitEachChild(node, visit, context), active(node))
    }
    return ts.visitEachChild(root, visit, context)
  }])
  return runtime + ts.createPrinter({ removeComments: true }).printFile(result)

  /** Returns a function that makes the switch of a mutant. */
  function active(node) {
    return (mutator, detail = node.getText(source)) => {
      const { line, character } = source.getLineAndCharacterOfPosition(node.getStart(source))
      const id = register({ file, line: line + 1, column: character + 1, mutator, code: detail.replaceAll(/\s+/g, ' ').slice(0, 90) })
      return f.createCallExpression(f.createIdentifier('__mutant'), undefined, [f.createNumericLiteral(id)])
    }
  }
}

const either = (test, mutated, original) => f.createParenthesizedExpression(f.createConditionalExpression(test, undefined, mutated, undefined, original))
/** Puts a statement under a condition, in a block: an `else` that follows belongs to another `if`. */
const unless = (test, statement) => f.createBlock([f.createIfStatement(f.createLogicalNot(test), f.createBlock([statement]))])
const forced = (is, visited) => either(is('condition true'), f.createTrue(), either(is('condition false'), f.createFalse(), visited))

/** Returns whether a node is what a statement or an expression branches on. */
const isCondition = node => (ts.isIfStatement(node.parent) && node.parent.expression === node) || (ts.isConditionalExpression(node.parent) && node.parent.condition === node)

function mutate(node, visited, is) {
  if (ts.isExpressionStatement(node) && isEffect(node.expression)) return unless(is('statement removed'), visited)
  // Where it is all that a condition leads to, the condition has this mutant.
  if ((ts.isThrowStatement(node) || ts.isContinueStatement(node)) && !ts.isIfStatement(node.parent)) return unless(is('statement removed'), visited)
  if (ts.isBlock(node) && ts.isFunctionLike(node.parent) && !ts.isConstructorDeclaration(node.parent) && node.statements.length > 1) {
    return f.updateBlock(visited, [f.createIfStatement(is('early return'), f.createReturnStatement()), ...visited.statements])
  }
  if (ts.isArrowFunction(node) && !ts.isBlock(node.body)) {
    return f.updateArrowFunction(visited, visited.modifiers, visited.typeParameters, visited.parameters, visited.type, visited.equalsGreaterThanToken,
      either(is('early return'), f.createVoidZero(), visited.body))
  }
  if (ts.isObjectLiteralExpression(node) && !isTarget(node)) {
    return f.updateObjectLiteralExpression(visited, visited.properties.map((property, i) => {
      const original = node.properties[i]
      if (ts.isAccessor(original)) return property
      const is = switchOf(original)
      return f.createSpreadAssignment(either(is('property dropped'), f.createObjectLiteralExpression(), f.createObjectLiteralExpression([property])))
    }))
  }
  if (!ts.isExpression(node)) return visited
  const mutated = expression(node, visited, is)
  return isCondition(node) ? forced(is, mutated) : mutated

  function switchOf(original) {
    return (mutator) => {
      const detail = original.getText()
      return is(mutator, detail)
    }
  }
}

function expression(node, visited, is) {
  if (ts.isAwaitExpression(node)) return either(is('await removed'), node.expression, visited)
  if (ts.isBinaryExpression(node)) {
    const { kind } = node.operatorToken
    const swapped = to => f.createBinaryExpression(node.left, to, node.right)
    if (LOGICAL.has(kind)) return either(is('left operand only'), node.left, either(is('right operand only'), node.right, visited))
    if (BOUNDARY.has(kind)) return either(is('boundary'), swapped(BOUNDARY.get(kind)), visited)
    if (EQUALITY.has(kind) && !isCondition(node)) return either(is('equality'), swapped(EQUALITY.get(kind)), visited)
    if (ARITHMETIC.has(kind) && !isText(node.left) && !isText(node.right)) return either(is('arithmetic'), swapped(ARITHMETIC.get(kind)), visited)
  }
  if (ts.isPrefixUnaryExpression(node) && node.operator === K.ExclamationToken && !isCondition(node)) return either(is('negation removed'), node.operand, visited)
  if (node.kind === K.TrueKeyword) return either(is('literal'), f.createFalse(), visited)
  if (node.kind === K.FalseKeyword) return either(is('literal'), f.createTrue(), visited)
  if (ts.isNumericLiteral(node) && !isName(node)) return either(is('literal'), f.createNumericLiteral(Number(node.text.replaceAll('_', '')) + 1), visited)
  if (ts.isStringLiteral(node) && node.text !== '' && isValue(node)) return either(is('literal'), f.createStringLiteral(''), visited)
  return visited
}

const isText = node => ts.isStringLiteral(node) || ts.isTemplateExpression(node) || ts.isNoSubstitutionTemplateLiteral(node) || (ts.isBinaryExpression(node) && (isText(node.left) || isText(node.right)))

function isEffect(node) {
  if (ts.isAwaitExpression(node) || ts.isVoidExpression(node) || ts.isParenthesizedExpression(node)) return isEffect(node.expression)
  if (ts.isCallExpression(node)) return node.expression.kind !== K.SuperKeyword
  if (ts.isBinaryExpression(node)) return node.operatorToken.kind >= K.FirstAssignment && node.operatorToken.kind <= K.LastAssignment
  return ts.isPrefixUnaryExpression(node) || ts.isPostfixUnaryExpression(node) || ts.isDeleteExpression(node)
}

/** Returns whether an object literal is assigned to, as in `({ a } = b)`. */
const isTarget = node => ts.isBinaryExpression(node.parent) && node.parent.operatorToken.kind === K.EqualsToken && node.parent.left === node

/** Returns whether a literal is a name rather than a value. */
const isName = node => (ts.isPropertyAssignment(node.parent) && node.parent.name === node) || (ts.isElementAccessExpression(node.parent) && node.parent.argumentExpression === node)

/** Kinds in tables of options, which lose their line in another mutant. */
const KINDS = new Set(['string', 'number', 'boolean', 'object', 'array', 'function', 'any'])

/** Returns whether a text is a value that the program works with, rather than a name or a message. */
function isValue(node) {
  const { parent } = node
  if (KINDS.has(node.text) || isName(node) || ts.isLiteralTypeNode(parent) || ts.isExternalModuleReference(parent) || ts.isExportDeclaration(parent) || ts.isPropertySignature(parent) || ts.isCaseClause(parent)) return false
  if (ts.isPropertyDeclaration(parent) || ts.isMethodDeclaration(parent)) return parent.initializer === node
  if (ts.isCallExpression(parent) || ts.isNewExpression(parent)) {
    const callee = ts.isPropertyAccessExpression(parent.expression) ? parent.expression.name : parent.expression
    return !MESSAGES.test(callee.getText()) && !['require', 'import'].includes(callee.getText())
  }
  if (ts.isBinaryExpression(parent)) return ![parent.left, parent.right].some(ts.isTypeOfExpression) && parent.operatorToken.kind !== K.PlusToken && parent.operatorToken.kind !== K.InKeyword
  return ts.isPropertyAssignment(parent) || ts.isArrayLiteralExpression(parent) || ts.isReturnStatement(parent) || ts.isConditionalExpression(parent) || ts.isVariableDeclaration(parent)
}
