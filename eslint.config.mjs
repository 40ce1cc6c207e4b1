import js from '@eslint/js'
import stylistic from '@stylistic/eslint-plugin'
import ts from 'typescript-eslint'

export default ts.config(
  { ignores: ['dist', 'target', 'index.d.ts', 'index.d.cts', 'lib/native/binding.d.ts', '**/node_modules', '**/.nuxt', '**/.output', '**/.data'] },
  js.configs.recommended,
  ts.configs.recommended,
  // Formatting: `npm run lint -- --fix`.
  stylistic.configs.customize({ indent: 2, quotes: 'single', semi: false, braceStyle: 'stroustrup', arrowParens: false, quoteProps: 'consistent' }),
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      '@stylistic/max-statements-per-line': 'off',
      '@stylistic/no-mixed-operators': 'off',
      '@stylistic/operator-linebreak': ['error', 'before', { overrides: { '=': 'after' } }],
      // The compiler knows which names there are.
      'no-undef': 'off',
      // JSON of any shape is what this package carries.
      '@typescript-eslint/no-explicit-any': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_', ignoreRestSiblings: true }],
      'prefer-const': 'error',
      'eqeqeq': 'error',
    },
  },
)
