import js from '@eslint/js'
import ts from 'typescript-eslint'

export default ts.config(
  { ignores: ['dist', 'target', 'index.d.ts', '**/node_modules', '**/.nuxt', '**/.output', '**/.data'] },
  js.configs.recommended,
  ts.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
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
